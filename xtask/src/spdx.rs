//! SPDX licence expressions (SPDX 2.3, annex D), as far as crates write them: identifiers, `AND`, `OR`,
//! `WITH`, parentheses, and the older `/` for `OR`.

use anyhow::{Result, bail};

/// Whether `expression` can be met with the licences for which `allowed` answers yes. It is asked for
/// `ID` and for `ID WITH EXCEPTION` as a whole.
///
/// # Errors
/// If it is no expression.
pub(crate) fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut parser = Parser {
        words: spaced.split_whitespace().collect(),
        at: 0,
        allowed,
    };
    let met = parser.or()?;
    match parser.next() {
        None => Ok(met),
        Some(word) => bail!("`{word}` stands where `{expression}` should end"),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    /// Goes past `word` if it is next.
    fn eat(&mut self, word: &str) -> bool {
        let eaten = self.words.get(self.at) == Some(&word);
        self.at += usize::from(eaten);
        eaten
    }

    fn or(&mut self) -> Result<bool> {
        let mut met = self.and()?;
        while self.eat("OR") {
            met |= self.and()?;
        }
        Ok(met)
    }

    fn and(&mut self) -> Result<bool> {
        let mut met = self.licence()?;
        while self.eat("AND") {
            met &= self.licence()?;
        }
        Ok(met)
    }

    fn licence(&mut self) -> Result<bool> {
        if self.eat("(") {
            let met = self.or()?;
            if !self.eat(")") {
                bail!("a parenthesis is not closed");
            }
            return Ok(met);
        }
        let id = self.identifier()?;
        if self.eat("WITH") {
            let exception = self.identifier()?;
            return Ok((self.allowed)(&format!("{id} WITH {exception}")));
        }
        Ok((self.allowed)(id))
    }

    fn identifier(&mut self) -> Result<&'a str> {
        match self.next() {
            Some(word) if !["AND", "OR", "WITH", "(", ")"].contains(&word) => Ok(word),
            Some(word) => bail!("`{word}` stands where a licence should"),
            None => bail!("a licence is missing at the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        is_met(expression, &|id| {
            ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&id)
        })
        .unwrap()
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        assert!(met("MIT"));
        assert!(!met("GPL-3.0-only"));
        assert!(met("GPL-3.0-only OR MIT"));
        assert!(!met("GPL-3.0-only AND MIT"));
        assert!(met("MIT AND ISC"));
        assert!(met("Zlib/MIT") && met("Zlib / MIT"));
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert!(met("MIT OR GPL-3.0-only AND LGPL-3.0-only"));
        assert!(!met("(MIT OR GPL-3.0-only) AND LGPL-3.0-only"));
        assert!(met("((MIT OR GPL-3.0-only) AND (ISC))"));
        assert!(met("GPL-3.0-only AND LGPL-3.0-only OR MIT"));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(met("Apache-2.0 WITH LLVM-exception"));
        assert!(!met("Apache-2.0"));
        assert!(!met("Apache-2.0 WITH Swift-exception"));
        assert!(!met("MIT WITH LLVM-exception"));
        assert!(met(
            "GPL-2.0-only OR Apache-2.0 WITH LLVM-exception AND MIT"
        ));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "", "(", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT ISC", "MIT WITH", "()", "AND",
        ] {
            assert!(is_met(text, &|_| true).is_err(), "{text:?}");
        }
    }
}
