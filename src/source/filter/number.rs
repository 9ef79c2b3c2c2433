//! Decimal numbers, and where they lie among the values of a column.

use arrow::datatypes::i256;

use super::place::Place;

/// A decimal number, exactly as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    pub negative: bool,
    /// Its digits, from the first that is not 0.
    digits: String,
    /// How many of the digits stand before the point; if negative, how many zeros follow the point.
    point: i64,
}

impl Number {
    /// Parses digits with an optional sign, point and exponent.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (&text[..1], rest),
            None => ("", text),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let exponent: i32 = exponent.parse().ok()?;
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        let point = whole.len() as i64 + i64::from(exponent) - zeros as i64;
        Some(Self { negative: sign == "-", digits: digits[zeros..].to_owned(), point })
    }

    /// Places the number among the multiples of 10^-scale, each given as its factor.
    pub fn place(&self, scale: i8) -> Place<i256> {
        let before = self.point + i64::from(scale);
        let known = before.clamp(0, self.digits.len() as i64) as usize;
        let (whole, rest) = self.digits.split_at(known);
        let exact = rest.bytes().all(|digit| digit == b'0');
        if before > MAX_DIGITS && !self.digits.is_empty() {
            return if self.negative { Place::BelowAll } else { Place::AboveAll };
        }
        let zeros = if self.digits.is_empty() { 0 } else { before.max(0) as usize - known };
        let whole = format!("0{whole}{}", "0".repeat(zeros));
        let Some(whole) = i256::from_string(&whole) else { return Place::AboveAll };
        match (self.negative, exact) {
            (false, true) => Place::At(whole),
            (false, false) => Place::Above(whole),
            (true, true) => Place::At(whole.wrapping_neg()),
            (true, false) => Place::Above(whole.wrapping_neg().wrapping_sub(i256::ONE)),
        }
    }
}

/// The most digits of a decimal; an `i256` holds all numbers of so many.
const MAX_DIGITS: i64 = 76;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, scale: i8) -> Place<i256> {
        Number::parse(text).unwrap().place(scale)
    }

    #[test]
    fn numbers_are_read_to_the_last_digit() {
        let at = |n: i128| Place::At(i256::from_i128(n));
        let above = |n: i128| Place::Above(i256::from_i128(n));
        for (text, scale, expected) in [
            ("0", 0, at(0)),
            ("-0.000", 2, at(0)),
            ("1.50", 2, at(150)),
            ("1.505", 2, above(150)),
            ("-1.505", 2, above(-151)),
            ("0.0000001", 2, above(0)),
            ("-0.0000001", 2, above(-1)),
            ("1500", -2, at(15)),
            ("1501", -2, above(15)),
            ("2.5e3", -2, at(25)),
            ("+.5E1", 0, at(5)),
            ("5.", 0, at(5)),
            ("1e75", 0, Place::At(i256::from_string(&format!("1{}", "0".repeat(75))).unwrap())),
            ("1e76", 0, Place::AboveAll),
            ("-1e400", 0, Place::BelowAll),
            ("1e-400", 0, above(0)),
            ("0e400", 0, at(0)),
        ] {
            assert_eq!(place(text, scale), expected, "{text} at {scale}");
        }
        for text in ["", "-", ".", "e5", "1e", "1e5.5", "1_000", "0x10", "١", "nan", "1-2", "--1", "1e99999999999"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}
