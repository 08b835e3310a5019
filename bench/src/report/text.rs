//! Numbers and times for people, and text that is safe within HTML.

/// A whole number with a comma between thousands: `12,345`.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// Three digits or so of a number: `12,345`, `123`, `12.3`, `1.23`, `0.0123`.
#[must_use]
pub fn short(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 100.0 || size == 0.0 => return thousands(value),
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ if size >= 0.01 => 4,
        _ => return format!("{value:.1e}"),
    };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number of bytes with its unit.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{} {unit}", short(count as f64 / *size as f64)),
        None => format!("{count} bytes"),
    }
}

/// A time as `2026-11-23 12:34:56`, in UTC.
#[must_use]
pub fn utc(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Text that is only text, in the content and in the attributes of HTML and SVG.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no place for these, whatever they are written as.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A command line that a shell takes as these words.
#[must_use]
pub fn shell(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (-1_234_567.0, "-1,234,567")];
        for (value, text) in cases {
            assert_eq!(thousands(value), text);
        }
        for (value, text) in [
            (12_345.6, "12,346"),
            (12.34, "12.3"),
            (2.0, "2"),
            (0.125, "0.125"),
            (0.0125, "0.0125"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_999), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_437_296_000), "2026-11-23 12:34:56");
    }

    #[test]
    fn a_shell_sees_the_same_words() {
        let words = ["parsec", "--slo", "p99<50ms", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&words), r"parsec --slo 'p99<50ms' 'it'\''s' ''");
    }

    proptest! {
        #[test]
        fn escaped_text_has_nothing_that_html_reads(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let plain = |c: &char| !c.is_control() || *c == '\n' || *c == '\t';
            prop_assert!(escaped.chars().all(|c| plain(&c)));
            let ampersands = escaped.matches('&').count();
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            let known: usize = entities.iter().map(|entity| escaped.matches(entity).count()).sum();
            prop_assert_eq!(ampersands, known);
        }
    }
}
