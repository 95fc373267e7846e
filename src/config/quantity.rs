//! Quantities as the file writes them: `10s`, `200MiB`, `0.01`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period(pub Duration);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub u64);

/// A fraction, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio(pub f64);

/// The text is no quantity. The message names the accepted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAQuantity(&'static str);

impl Period {
    /// A number of seconds.
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Period {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let milliseconds = with_unit(text, &PERIOD_UNITS).ok_or(NOT_A_PERIOD)?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

impl FromStr for Size {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        with_unit(text, &SIZE_UNITS).map(Self).ok_or(NOT_A_SIZE)
    }
}

impl FromStr for Ratio {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let ratio = text.parse().ok().filter(|ratio| is_plain && (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or(NOT_A_RATIO)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        in_largest_unit(self.0.as_millis(), &PERIOD_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_largest_unit(self.0.into(), &SIZE_UNITS, f)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time: a whole number with its unit.",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["500ms", "10s", "5m", "12h", "7d"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number of bytes: a whole number with its unit.",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "examples": ["64KiB", "200MiB"],
        })
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "description": "A fraction, from 0 to 1.",
            "minimum": 0,
            "maximum": 1,
        })
    }
}

/// Parses within the visit, while the deserializer still knows the place of a fault.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err = NotAQuantity>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `units` from the largest to the smallest.
fn in_largest_unit(amount: u128, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = units.iter().find(|(_, factor)| {
        amount >= u128::from(*factor) && amount.is_multiple_of(u128::from(*factor))
    });
    let (name, factor) = whole.copied().unwrap_or((units[units.len() - 1].0, 1));
    write!(f, "{}{name}", amount / u128::from(factor))
}

const PERIOD_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const NOT_A_PERIOD: NotAQuantity =
    NotAQuantity("a duration with a unit, such as `500ms`, `10s`, `5m`, `12h` or `7d`");
const NOT_A_RATIO: NotAQuantity = NotAQuantity("a number from `0` to `1`, such as `0.01`");
const NOT_A_SIZE: NotAQuantity = NotAQuantity("a size with a unit, such as `64KiB` or `200MiB`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_as_they_are_written() {
        for text in ["500ms", "10s", "5m", "12h", "7d", "0s", "90s"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("0ms".parse::<Period>().unwrap().to_string(), "0s", "no time has one spelling");
        for text in ["200MiB", "1GiB", "64KiB", "1000B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_has_no_unit_or_overflows_is_no_quantity() {
        for text in ["", "10", "s", "10 s", "-1s", "1.5s", "10S", "99999999999999999999s", "١s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for text in ["", "1.1", "-0", "1e-2", "inf", "NaN", "1%", ".", "0.0.1", "2"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
        for (text, ratio) in [("0", 0.0), ("0.01", 0.01), ("1", 1.0), ("1.0", 1.0)] {
            assert_eq!(text.parse(), Ok(Ratio(ratio)));
        }
        for text in ["", "10", "MiB", "1MB", "1mib", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
