//! Words and numbers as people read them, and nothing a terminal would obey.
//!
//! Documents, file names and models may hold escape sequences that move the cursor, change the title or
//! forge what is shown. None of them reaches the terminal: control characters are shown as pictures.

use std::{borrow::Cow, fmt::Write as _};

use colibri_engine::{budget::ModelPlan, memory::Used};

/// Text of several lines: line breaks and tabs stay, other control characters are shown.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// Text that has to stay on its line.
pub(crate) fn clean_line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !stays(c)) {
        return Cow::Borrowed(text);
    }
    text.chars()
        // A carriage return before a line break is half of one.
        .filter(|&c| c != '\r')
        .map(|c| {
            if is_unsafe(c) && !stays(c) {
                picture(c)
            } else {
                c
            }
        })
        .collect::<String>()
        .into()
}

/// Control characters, and those that turn the direction of the text around them.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The character of Unicode's block Control Pictures.
fn picture(c: char) -> char {
    match u32::from(c) {
        code @ 0..=0x1f => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// JSON in which every control character is escaped, those above 127 too.
pub(crate) fn clean_json(json: String) -> String {
    if !json.chars().any(|c| matches!(c, '\u{7f}'..='\u{9f}')) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// `1 page`, `2 pages`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Reads `500`, `64KiB`, `2 GB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fault =
        || format!("`{text}` is no size: write a number of bytes, or one with KiB, MiB or GiB");
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(fault()),
    };
    let bytes = number.parse::<f64>().map_err(|_| fault())? * factor;
    // Beyond 2^53 a count of bytes is a mistake.
    if bytes.is_finite() && (0.0..9e15).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(fault())
    }
}

/// How a model is going to be held, on one line.
pub(crate) fn plan(plan: &ModelPlan) -> String {
    let kv = if plan.kv_bytes > 0 {
        format!(" + {} keys and values", bytes(plan.kv_bytes))
    } else {
        String::new()
    };
    let index = if plan.index_bytes > 0 {
        format!(" + {} index", bytes(plan.index_bytes))
    } else {
        String::new()
    };
    format!(
        "{} {} in {}, {} at a time: {} weights{kv} + {} passing values + {} program{index} = {}",
        plan.role,
        plan.model,
        plan.precision,
        count(plan.pages, "page"),
        bytes(plan.weights_bytes),
        bytes(plan.passing_bytes),
        bytes(plan.program_bytes),
        bytes(plan.total_bytes)
    )
}

/// Where the peak went, for a person.
pub(crate) fn used(used: &Used) -> String {
    let mut parts = Vec::new();
    let weights = format!(
        "{} weights ({} vision, {} text)",
        bytes(used.weights_bytes),
        bytes(used.vision_weights_bytes),
        bytes(used.text_weights_bytes)
    );
    if used.weights_bytes > 0 {
        parts.push(weights);
    }
    for (amount, what) in [
        (used.features_bytes, "visual tokens"),
        (used.kv_bytes, "keys and values"),
        (used.prefix_bytes, "of these kept for the next question"),
        (used.files_bytes, "files and the index"),
        (used.other_bytes, "activations and the rest"),
        (
            used.shared_weights_bytes,
            "weights held once for two models",
        ),
    ] {
        if amount > 0 {
            parts.push(format!("{} {what}", bytes(amount)));
        }
    }
    format!("of it {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_remains() {
        assert_eq!(clean("plain\n\ttext"), "plain\n\ttext");
        assert_eq!(
            clean("\u{1b}[2Jgone\u{7}\u{7f}\u{9b}31m"),
            "␛[2Jgone␇␡\u{fffd}31m"
        );
        assert_eq!(clean("a\r\nb"), "a\nb");
        assert_eq!(clean_line("a\nb\tc"), "a␊b␉c");
        assert_eq!(clean("abc\u{202e}fdp.exe"), "abc\u{fffd}fdp.exe");
        for code in 0..0x250 {
            let text = format!("x{}", char::from_u32(code).unwrap());
            assert!(!clean_line(&text).chars().any(char::is_control), "{code:x}");
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}31m\u{7f}\u{1b}é";
        let json = clean_json(serde_json::to_string(text).unwrap());
        assert!(!json.chars().any(char::is_control), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, expected) in [
            ("0", 0),
            ("500", 500),
            ("64KiB", 65536),
            ("2 GB", 2_000_000_000),
            ("1.5m", 1_572_864),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "much", "-1", "1.2.3", "5 apples", "9999999999999999999"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(1023 << 20), "1.0 GiB");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "page"), "1 page");
        assert_eq!(count(0, "page"), "0 pages");
    }
}
