//! Prepares a contract's source for a deterministic machine.
//!
//! A table hashes keys that are tables, functions or coroutines by their address. Their order,
//! and even the moment at which a table grows (with it `#t` of a table with holes, and the memory
//! used), would differ between hosts. Such keys can't be told from others in the source, so each
//! key that is assigned to, and is not a literal, is passed through a check at run time:
//! `t[k] = v` becomes `t[__parsec_key(k)] = v`. That needs no parser: an assignment's brackets are
//! followed by `=` or, in a list, by `,`.
//!
//! A string's length decides how long an instruction takes that looks at it, so the machine must
//! know the longest one. All functions that make strings tell it; of the operators only `..` makes
//! any. `a .. b` becomes `a .. __parsec_join .. b`, an object whose metamethods join the two.
//!
//! The operator `^` is refused: it is the C library's `pow`, which differs between processors.
//!
//! **Invariant:** what is a token here is the same token to Lua 5.4; what is no token to either is
//! an error here. Otherwise a source could hide an assignment.

/// How names begin that sources can't contain.
const RESERVED: &[u8] = b"__parsec_";
/// What stands before the source, on its first line: a chunk is called with its environment and
/// with what the insertions refer to.
const HEAD: &[u8] = b"local _ENV, __parsec_key, __parsec_join = ...; ";

/// A source to compile.
pub(super) struct Prepared {
    pub(super) text: Vec<u8>,
    /// The length of the longest literal in it, bytes.
    pub(super) longest: usize,
}

/// Prepares a source.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn prepare(source: &[u8]) -> Result<Prepared, String> {
    let mut lexer = Lexer { source, at: 0 };
    let mut brackets: Vec<Bracket> = Vec::new();
    // Where to insert what, in no order yet.
    let mut inserts: Vec<(usize, &[u8])> = Vec::new();
    let mut closed: Option<(Bracket, usize)> = None;
    let mut longest = 0;
    loop {
        let before = lexer.at;
        let token = lexer.token().map_err(|what| format!("line {}: {what}", lexer.line()))?;
        if let Some((bracket, close)) = closed.take() {
            let assigned = matches!(token, Token::Assign | Token::Comma);
            if assigned && !bracket.is_literal() {
                inserts.push((bracket.open, b"__parsec_key("));
                inserts.push((close, b")"));
            }
        }
        match token {
            Token::End => break,
            Token::Open => {
                note(&mut brackets, false);
                brackets.push(Bracket { open: lexer.at, tokens: 0, literals: 0 });
            }
            Token::Close => {
                let bracket = brackets.pop().ok_or("a ']' closes nothing")?;
                closed = Some((bracket, lexer.at - 1));
            }
            other => {
                note(&mut brackets, other == Token::Literal);
                match other {
                    Token::Join => inserts.push((lexer.at, b" __parsec_join .. ")),
                    Token::Literal => longest = longest.max(lexer.at - before),
                    _ => {}
                }
            }
        }
    }
    inserts.sort_by_key(|(at, _)| *at);
    Ok(Prepared { text: with_inserts(source, &inserts), longest })
}

fn with_inserts(source: &[u8], inserts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut text = HEAD.to_vec();
    let mut from = 0;
    for (at, insert) in inserts {
        text.extend_from_slice(&source[from..*at]);
        text.extend_from_slice(insert);
        from = *at;
    }
    text.extend_from_slice(&source[from..]);
    text
}

/// An open `[`.
struct Bracket {
    /// The place behind it.
    open: usize,
    tokens: usize,
    literals: usize,
}

impl Bracket {
    /// Whether there is one literal in it and nothing else.
    fn is_literal(&self) -> bool {
        self.tokens == 1 && self.literals == 1
    }
}

fn note(brackets: &mut [Bracket], literal: bool) {
    if let Some(innermost) = brackets.last_mut() {
        innermost.tokens += 1;
        innermost.literals += usize::from(literal);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `[` as an operator.
    Open,
    /// `]`.
    Close,
    /// `=`, not `==`.
    Assign,
    Comma,
    /// `..`.
    Join,
    /// A string or a number.
    Literal,
    /// A name, a keyword or another operator.
    Other,
    End,
}

struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    fn line(&self) -> usize {
        let read = &self.source[..self.at.min(self.source.len())];
        1 + read.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Moves behind the next token.
    fn token(&mut self) -> Result<Token, &'static str> {
        self.skip_blanks()?;
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        let token = match first {
            b'[' => return self.bracket(),
            b'"' | b'\'' => return self.string(first),
            b'0'..=b'9' => return self.number(),
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => return self.number(),
            b'.' if self.peek(1) == Some(b'.') => {
                let dots = if self.peek(2) == Some(b'.') { 3 } else { 2 };
                self.at += dots;
                return Ok(if dots == 2 { Token::Join } else { Token::Other });
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => return self.name(),
            b'^' => return Err("'^' is not available; math.pow takes integer exponents"),
            b']' => Token::Close,
            b',' => Token::Comma,
            b'=' if self.peek(1) != Some(b'=') => Token::Assign,
            b'=' | b'<' | b'>' | b'~' if self.peek(1) == Some(b'=') => {
                self.at += 1;
                Token::Other
            }
            _ => Token::Other,
        };
        self.at += 1;
        Ok(token)
    }

    fn skip_blanks(&mut self) -> Result<(), &'static str> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c), _) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn comment(&mut self) -> Result<(), &'static str> {
        self.at += 2;
        if let Some(level) = self.long_bracket() {
            return self.long_text(level).map_err(|_| "unfinished long comment");
        }
        while self.peek(0).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
            self.at += 1;
        }
        Ok(())
    }

    /// The level of the long bracket that opens here.
    fn long_bracket(&self) -> Option<usize> {
        if self.peek(0) != Some(b'[') {
            return None;
        }
        let level = self.equal_signs(1);
        (self.peek(level + 1) == Some(b'[')).then_some(level)
    }

    fn equal_signs(&self, from: usize) -> usize {
        (0..).take_while(|n| self.peek(from + n) == Some(b'=')).count()
    }

    fn long_text(&mut self, level: usize) -> Result<(), &'static str> {
        self.at += level + 2;
        while let Some(byte) = self.peek(0) {
            let closes =
                byte == b']' && self.equal_signs(1) == level && self.peek(level + 1) == Some(b']');
            if closes {
                self.at += level + 2;
                return Ok(());
            }
            self.at += 1;
        }
        Err("unfinished long string")
    }

    fn bracket(&mut self) -> Result<Token, &'static str> {
        if let Some(level) = self.long_bracket() {
            self.long_text(level)?;
            return Ok(Token::Literal);
        }
        if self.peek(1) == Some(b'=') {
            return Err("invalid long string delimiter");
        }
        self.at += 1;
        Ok(Token::Open)
    }

    fn string(&mut self, quote: u8) -> Result<Token, &'static str> {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            match byte {
                b'\\' => self.escape(),
                b'\n' | b'\r' => return Err("unfinished string"),
                byte if byte == quote => return Ok(Token::Literal),
                _ => {}
            }
        }
        Err("unfinished string")
    }

    /// Moves behind what follows a backslash, as far as it could be taken for the string's end.
    fn escape(&mut self) {
        let escaped = self.peek(0);
        self.at += 1;
        match (escaped, self.peek(0)) {
            (Some(b'\n'), Some(b'\r')) | (Some(b'\r'), Some(b'\n')) => self.at += 1,
            (Some(b'z'), _) => {
                let blank = |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
                while self.peek(0).is_some_and(blank) {
                    self.at += 1;
                }
            }
            _ => {}
        }
    }

    /// A numeral, and whatever is glued to it: Lua itself then says if it is malformed.
    fn number(&mut self) -> Result<Token, &'static str> {
        let hex = self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X'));
        self.at += if hex { 2 } else { 0 };
        while let Some(byte) = self.peek(0) {
            let exponent = match hex {
                true => matches!(byte, b'p' | b'P'),
                false => matches!(byte, b'e' | b'E'),
            };
            if exponent {
                self.at += 1;
                self.at += usize::from(matches!(self.peek(0), Some(b'+' | b'-')));
            } else if byte.is_ascii_hexdigit() || byte == b'.' {
                self.at += 1;
            } else if byte.is_ascii_alphabetic() || byte == b'_' {
                return Err("malformed number");
            } else {
                break;
            }
        }
        Ok(Token::Literal)
    }

    fn name(&mut self) -> Result<Token, &'static str> {
        let begin = self.at;
        while self.peek(0).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.at += 1;
        }
        match self.source[begin..self.at].starts_with(RESERVED) {
            true => Err("names that begin with '__parsec_' are reserved"),
            false => Ok(Token::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prepared(source: &str) -> String {
        let prepared = prepare(source.as_bytes()).unwrap().text;
        let prepared = String::from_utf8(prepared).unwrap();
        let head = std::str::from_utf8(HEAD).unwrap();
        prepared
            .strip_prefix(head)
            .unwrap()
            .replace("__parsec_key", "K")
            .replace("__parsec_join", "J")
    }

    #[test]
    fn assigned_keys_are_checked() {
        let cases = [
            ("t[k] = v", "t[K(k)] = v"),
            ("t[k]=v", "t[K(k)]=v"),
            ("t[a], t[b] = 1, 2", "t[K(a)], t[K(b)] = 1, 2"),
            ("t[a].b[c] = 1", "t[a].b[K(c)] = 1"),
            ("t[u[a]] = 1", "t[K(u[a])] = 1"),
            ("return {[k] = v, [1] = 2, [[x]]}", "return {[K(k)] = v, [1] = 2, [[x]]}"),
            ("t[k] --[[x]] --y\n = v", "t[K(k)] --[[x]] --y\n = v"),
            ("t[ [[a]] ] = t['b'] t[1] = t[0x1p+2]", "t[ [[a]] ] = t['b'] t[1] = t[0x1p+2]"),
            ("t['a'..b] = 1", "t[K('a'.. J .. b)] = 1"),
            ("t[...] = 1 ..2", "t[K(...)] = 1 .. J .. 2"),
            ("x = a..b..5 ..c.d", "x = a.. J .. b.. J .. 5 .. J .. c.d"),
            ("t[-1] = 1", "t[K(-1)] = 1"),
        ];
        for (source, expected) in cases {
            assert_eq!(prepared(source), expected);
        }
    }

    #[test]
    fn what_only_reads_is_left_alone() {
        for source in [
            "return t[k] == 1 and t[k] ~= t[k]",
            "x = t[k]\ny = t[k]",
            "t[k].x = 1",
            "f(t[k])",
            "s = f('[k] = .. ', \"[k]\\\"=\", [==[ [k]=]] ]==])",
            "-- t[k] = 1\n--[[ t[k] = 1 ]]",
            "s = 'a\\z  \n [k] =' s = 'a\\\r\n[k] ='",
            "return a<b, a<=b, .5, 1.5, a.b, ...",
        ] {
            assert_eq!(prepared(source), source);
        }
    }

    #[test]
    fn what_lua_would_read_otherwise_is_refused() {
        for source in [
            "x = '",
            "x = 'a\nb'",
            "x = [[a",
            "--[[a",
            "x = [=a",
            "x = 3x",
            "]",
            "__parsec_key = f",
            "local __parsec_other",
            "x = 2 ^ 3",
        ] {
            assert!(prepare(source.as_bytes()).is_err(), "{source}");
        }
        let problem = prepare(b"\n\nx = '").err();
        assert_eq!(problem.as_deref(), Some("line 3: unfinished string"));
    }

    #[test]
    fn the_longest_literal_is_known() {
        let longest = |source: &str| prepare(source.as_bytes()).unwrap().longest;
        assert!((5..9).contains(&longest("f('a', \"12345\", 12)")));
        assert!(longest("x = [[\n0123456789\n]]") >= 10);
        assert_eq!(longest("f()"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_prepared_or_refused(source: Vec<u8>) {
            if let Ok(prepared) = prepare(&source) {
                prop_assert!(prepared.text.len() >= source.len() + HEAD.len());
            }
        }

        #[test]
        fn any_tokens_are_prepared_or_refused(
            source in "([\\[\\]=,'\"^ \\n]|--|\\[=\\[|\\]=\\]|\\\\z|\\\\|0x|1e|[a-c]){0,40}",
        ) {
            if let Ok(prepared) = prepare(source.as_bytes()) {
                prop_assert!(prepared.text.len() >= source.len());
            }
        }
    }
}
