//! Lua's patterns, with a bound on the work: Lua's own matcher can run for years between two
//! instructions (`find(s, ".-.-.-b")`), where no hook would stop it.
//!
//! Patterns are those of the Lua 5.4 manual (section 6.4.1), on bytes, in the "C" locale.

/// Most captures of a pattern.
const CAPTURES_MAX: usize = 32;
/// Deepest nesting of attempts, as in Lua.
const DEPTH_MAX: usize = 200;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The pattern is wrong.
    Malformed(&'static str),
    /// The work is used up, or the pattern nests too deeply: that is the end of the call.
    Exhausted,
}

/// What a part of a pattern caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    /// A part of the subject.
    Text { start: usize, end: usize },
    /// A place in the subject, from 0.
    Place(usize),
}

/// A match: a part of the subject, and the captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) captures: Vec<Capture>,
}

/// Finds the first match that begins at `from` or later. With `anchored`, a `^` at the beginning
/// of the pattern ties it to `from`. A match that ends where the one before it ended (`last`) does
/// not count. Takes the steps it needed from `steps`.
///
/// # Errors
/// [`Fault`].
pub(super) fn search(
    subject: &[u8],
    pattern: &[u8],
    from: usize,
    anchored: bool,
    last: Option<usize>,
    steps: &mut u64,
) -> Result<Option<Match>, Fault> {
    let tied = anchored && pattern.first() == Some(&b'^');
    let pattern = if tied { &pattern[1..] } else { pattern };
    let mut matcher = Matcher { subject, pattern, captures: Vec::new(), depth: 0, steps };
    for start in from..=subject.len() {
        matcher.captures.clear();
        matcher.depth = 0;
        if let Some(end) = matcher.run(start, 0)?
            && Some(end) != last
        {
            return Ok(Some(Match { start, end, captures: matcher.finished()? }));
        }
        if tied {
            break;
        }
    }
    Ok(None)
}

/// Whether a pattern matches nothing but itself.
pub(super) fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte))
}

/// Finds a plain text at `from` or later. Takes the steps it needed from `steps`.
///
/// # Errors
/// [`Fault::Exhausted`].
pub(super) fn search_plain(
    subject: &[u8],
    text: &[u8],
    from: usize,
    steps: &mut u64,
) -> Result<Option<usize>, Fault> {
    let Some(first) = text.first() else { return Ok(Some(from)) };
    for start in from..(subject.len() + 1).saturating_sub(text.len()) {
        take(steps, 1)?;
        if subject[start] == *first {
            let common = subject[start..].iter().zip(text).take_while(|(a, b)| a == b).count();
            take(steps, common)?;
            if common == text.len() {
                return Ok(Some(start));
            }
        }
    }
    Ok(None)
}

fn take(steps: &mut u64, count: usize) -> Result<(), Fault> {
    let count = u64::try_from(count).map_err(|_| Fault::Exhausted)?;
    *steps = steps.checked_sub(count).ok_or(Fault::Exhausted)?;
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Begun at `start`, not closed yet.
    Yet {
        start: usize,
    },
    Closed(Capture),
}

struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Open>,
    depth: usize,
    steps: &'a mut u64,
}

type Found = Result<Option<usize>, Fault>;

impl Matcher<'_> {
    /// Matches the pattern from `p` on at `s`. Returns where the match ends.
    fn run(&mut self, s: usize, p: usize) -> Found {
        if self.depth == DEPTH_MAX {
            return Err(Fault::Exhausted);
        }
        self.depth += 1;
        let found = self.run_here(s, p);
        self.depth -= 1;
        found
    }

    fn run_here(&mut self, mut s: usize, mut p: usize) -> Found {
        loop {
            take(self.steps, 1)?;
            let Some(&first) = self.pattern.get(p) else { return Ok(Some(s)) };
            match (first, self.pattern.get(p + 1)) {
                (b'(', Some(b')')) => {
                    return self.open(Open::Closed(Capture::Place(s)), s, p + 2);
                }
                (b'(', _) => return self.open(Open::Yet { start: s }, s, p + 1),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.subject.len()).then_some(s)),
                (b'%', Some(b'b')) => match self.balanced(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => match self.frontier(s, p + 2)? {
                    Some(next) => p = next,
                    None => return Ok(None),
                },
                (b'%', Some(digit @ b'0'..=b'9')) => match self.repeated(s, *digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => return Ok(None),
                },
                _ => {
                    let next = self.class_end(p)?;
                    match self.pattern.get(next) {
                        Some(b'?') => {
                            if self.single(s, p, next)?
                                && let Some(end) = self.run(s + 1, next + 1)?
                            {
                                return Ok(Some(end));
                            }
                            p = next + 1;
                        }
                        Some(b'*') => return self.longest(s, p, next, 0),
                        Some(b'+') => return self.longest(s, p, next, 1),
                        Some(b'-') => return self.shortest(s, p, next),
                        _ if self.single(s, p, next)? => (s, p) = (s + 1, next),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn open(&mut self, capture: Open, s: usize, p: usize) -> Found {
        if self.captures.len() == CAPTURES_MAX {
            return Err(Fault::Malformed("too many captures"));
        }
        self.captures.push(capture);
        let found = self.run(s, p)?;
        if found.is_none() {
            self.captures.pop();
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Found {
        let open = |(index, capture): (usize, &Open)| match capture {
            Open::Yet { start } => Some((index, *start)),
            Open::Closed(_) => None,
        };
        let (index, start) = (self.captures.iter().enumerate().rev())
            .find_map(open)
            .ok_or(Fault::Malformed("invalid pattern capture"))?;
        self.captures[index] = Open::Closed(Capture::Text { start, end: s });
        let found = self.run(s, p)?;
        if found.is_none() {
            self.captures[index] = Open::Yet { start };
        }
        Ok(found)
    }

    /// The end of a balanced text at `s`, for the two bytes at `p`.
    fn balanced(&mut self, s: usize, p: usize) -> Found {
        let (Some(&open), Some(&close)) = (self.pattern.get(p), self.pattern.get(p + 1)) else {
            return Err(Fault::Malformed("missing arguments to '%b'"));
        };
        if self.subject.get(s) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1usize;
        for (index, byte) in self.subject.iter().enumerate().skip(s + 1) {
            take(self.steps, 1)?;
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(index + 1));
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// The place in the pattern behind the set at `p`, if `s` is where it begins to hold.
    fn frontier(&mut self, s: usize, p: usize) -> Found {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(Fault::Malformed("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        take(self.steps, end - p)?;
        let before = s.checked_sub(1).map_or(0, |before| self.subject[before]);
        let here = self.subject.get(s).copied().unwrap_or(0);
        let begins = !self.in_set(before, p, end) && self.in_set(here, p, end);
        Ok(begins.then_some(end))
    }

    /// Where the text of an earlier capture ends, if it is repeated at `s`.
    fn repeated(&mut self, s: usize, digit: u8) -> Found {
        let index = usize::from(digit).checked_sub(usize::from(b'1'));
        let (start, end) = match index.and_then(|index| self.captures.get(index)).copied() {
            Some(Open::Closed(Capture::Text { start, end })) => (start, end),
            Some(Open::Closed(Capture::Place(_))) => return Ok(None),
            _ => return Err(Fault::Malformed("invalid capture index in pattern")),
        };
        let text = &self.subject[start..end];
        take(self.steps, text.len())?;
        Ok(self.subject[s..].starts_with(text).then_some(s + text.len()))
    }

    /// The place behind the single-character class at `p`.
    fn class_end(&self, p: usize) -> Result<usize, Fault> {
        match self.pattern[p] {
            b'%' if p + 1 == self.pattern.len() => {
                Err(Fault::Malformed("malformed pattern (ends with '%')"))
            }
            b'%' => Ok(p + 2),
            b'[' => self.set_end(p),
            _ => Ok(p + 1),
        }
    }

    fn set_end(&self, p: usize) -> Result<usize, Fault> {
        let missing = Fault::Malformed("malformed pattern (missing ']')");
        let mut at = p + 1;
        at += usize::from(self.pattern.get(at) == Some(&b'^'));
        // A ']' right at the beginning stands for itself.
        loop {
            match self.pattern.get(at).ok_or(missing)? {
                b'%' => at += 2,
                _ => at += 1,
            }
            if self.pattern.get(at).ok_or(missing)? == &b']' {
                return Ok(at + 1);
            }
        }
    }

    /// Whether the byte at `s` is of the class at `p..end`.
    fn single(&mut self, s: usize, p: usize, end: usize) -> Result<bool, Fault> {
        take(self.steps, end - p)?;
        let Some(&byte) = self.subject.get(s) else { return Ok(false) };
        Ok(match self.pattern[p] {
            b'.' => true,
            b'%' => is_of(byte, self.pattern[p + 1]),
            b'[' => self.in_set(byte, p, end),
            literal => literal == byte,
        })
    }

    /// Whether `byte` is in the set at `p..end`, brackets included.
    fn in_set(&self, byte: u8, p: usize, end: usize) -> bool {
        let mut set = &self.pattern[p + 1..end - 1];
        let negated = set.first() == Some(&b'^');
        set = if negated { &set[1..] } else { set };
        while let [first, rest @ ..] = set {
            let (found, next) = match (first, rest) {
                (b'%', [class, rest @ ..]) => (is_of(byte, *class), rest),
                // As in Lua, where it can only be what a range has left over of a '%%'.
                (b'%', []) => (byte == b']', rest),
                (low, [b'-', high, rest @ ..]) => ((*low..=*high).contains(&byte), rest),
                (literal, rest) => (*literal == byte, rest),
            };
            if found {
                return !negated;
            }
            set = next;
        }
        negated
    }

    /// As many of the class at `p..next` as possible, at least `least`, then the rest.
    fn longest(&mut self, s: usize, p: usize, next: usize, least: usize) -> Found {
        let mut count = 0;
        while self.single(s + count, p, next)? {
            count += 1;
        }
        while count >= least {
            if let Some(end) = self.run(s + count, next + 1)? {
                return Ok(Some(end));
            }
            match count.checked_sub(1) {
                Some(fewer) => count = fewer,
                None => break,
            }
        }
        Ok(None)
    }

    /// As few of the class at `p..next` as possible, then the rest.
    fn shortest(&mut self, mut s: usize, p: usize, next: usize) -> Found {
        loop {
            if let Some(end) = self.run(s, next + 1)? {
                return Ok(Some(end));
            }
            if !self.single(s, p, next)? {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn finished(&self) -> Result<Vec<Capture>, Fault> {
        let finished = |open: &Open| match open {
            Open::Closed(capture) => Ok(*capture),
            Open::Yet { .. } => Err(Fault::Malformed("unfinished capture")),
        };
        self.captures.iter().map(finished).collect()
    }
}

/// Whether `byte` is of a class such as `%a`; an upper-case letter is the complement.
fn is_of(byte: u8, class: u8) -> bool {
    let holds = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    holds != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(subject: &str, pattern: &str) -> Result<Option<(usize, usize)>, Fault> {
        let found = search(subject.as_bytes(), pattern.as_bytes(), 0, true, None, &mut 1_000_000)?;
        Ok(found.map(|found| (found.start, found.end)))
    }

    #[test]
    fn patterns_of_hostile_cost_are_stopped() {
        let subject = "a".repeat(2_000);
        assert_eq!(find(&subject, ".-.-.-.-b"), Err(Fault::Exhausted));
        assert_eq!(find(&subject, &"a?".repeat(300)), Err(Fault::Exhausted));
        assert_eq!(find(&subject, &format!("{}b", ".-".repeat(1_000))), Err(Fault::Exhausted));
        let mut few = 100;
        assert_eq!(search_plain(subject.as_bytes(), b"ab", 0, &mut few), Err(Fault::Exhausted));
    }

    #[test]
    fn malformed_patterns_say_so() {
        for pattern in
            ["%", "[a", "[", "[]", "[^]", "(", "a)", "%1", "(%1)", "%b", "%bx", "%fa", "[%"]
        {
            assert!(matches!(find("aaa", pattern), Err(Fault::Malformed(_))), "{pattern}");
        }
    }

    #[test]
    fn an_equal_end_does_not_count_twice() {
        let next = |from, last| {
            search(b"ab", b"x*", from, false, last, &mut 100).unwrap().map(|m| (m.start, m.end))
        };
        assert_eq!(next(0, None), Some((0, 0)));
        assert_eq!(next(0, Some(0)), Some((1, 1)));
        assert_eq!(next(2, Some(2)), None);
    }

    /// What Lua itself finds.
    fn reference(lua: &mlua::Lua, subject: &[u8], pattern: &[u8]) -> Option<Vec<String>> {
        let text = |bytes: &[u8]| lua.create_string(bytes).unwrap();
        let code = "local ok, t = pcall(function(...) return table.pack(string.find(...)) end, \
        ...) \
                    if not ok then return nil end \
                    for i = 1, t.n do t[i] = tostring(t[i]) end return t";
        lua.load(code).call((text(subject), text(pattern))).unwrap()
    }

    fn ours(subject: &[u8], pattern: &[u8]) -> Option<Vec<String>> {
        if is_plain(pattern) {
            let found = search_plain(subject, pattern, 0, &mut 1_000).unwrap();
            return Some(match found {
                Some(at) => vec![(at + 1).to_string(), (at + pattern.len()).to_string()],
                None => vec!["nil".into()],
            });
        }
        let found = match search(subject, pattern, 0, true, None, &mut 10_000_000) {
            Ok(Some(found)) => found,
            Ok(None) => return Some(vec!["nil".into()]),
            Err(_) => return None,
        };
        let mut all = vec![(found.start + 1).to_string(), found.end.to_string()];
        all.extend(found.captures.iter().map(|capture| match capture {
            Capture::Text { start, end } => {
                String::from_utf8_lossy(&subject[*start..*end]).into_owned()
            }
            Capture::Place(place) => (place + 1).to_string(),
        }));
        Some(all)
    }

    #[test]
    fn what_is_found_is_what_lua_finds() {
        let lua = mlua::Lua::new();
        let cases = [
            ("hello world", "o w"),
            ("hello", "l+"),
            ("hello", "(l)(l)()"),
            ("key = value", "^(%w+)%s*=%s*(%w+)$"),
            ("THE (quick) fox", "%((%a+)%)"),
            ("f(a(b)c)d", "%b()"),
            ("THE (quick) fox", "%f[%a]%a+%f[%A]"),
            ("\"x\" 'y'", "([\"'])(.-)%1"),
            ("a.b-c", "[.%-]"),
            ("a]b", "[]]"),
            ("a^b", "[%^x]"),
            ("a-z", "[a%-]+"),
            ("x", "[^%s]"),
            ("", ""),
            ("", "^$"),
            ("abc", "$"),
            ("a$b", "a$b"),
            ("abc", "b?c?d?$"),
            ("aaa", "a-b"),
            ("aaab", "a-b"),
            ("a\0b", "%z"),
            ("[[x]]", "[[]"),
            ("a-", "[a-]+"),
            ("-]", "[%]-]+"),
            ("b", "[a-%c]"),
        ];
        for (subject, pattern) in cases {
            let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
            assert_eq!(ours(subject, pattern), reference(&lua, subject, pattern), "{pattern:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn any_pattern_finds_what_lua_finds(
            subject in "[ab0 ()%.-]{0,12}",
            pattern in "([abAdws0-9().%\\[\\]^$*+?-]|%[adsw1bf]|\\[[ab^%d-]{1,3}\\]){0,8}",
        ) {
            let lua = mlua::Lua::new();
            let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
            prop_assert_eq!(ours(subject, pattern), reference(&lua, subject, pattern));
        }

        #[test]
        fn no_pattern_breaks_it(subject: Vec<u8>, pattern: Vec<u8>) {
            let mut steps = 100_000;
            drop(search(&subject, &pattern, 0, true, None, &mut steps));
        }
    }
}
