//! JSON that notices repeated names. Readers may choose different ones of the values (RFC 8259,
//! section 4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value, and whether an object in it repeats a name, at any depth.
#[derive(Debug)]
pub(crate) struct Json {
    pub(crate) value: Value,
    pub(crate) repeats: bool,
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self { value, repeats: false }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Value::Number(number).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Value::String(value.to_owned()).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Value::String(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let (mut list, mut repeats) = (Vec::new(), false);
        while let Some(item) = items.next_element::<Json>()? {
            repeats |= item.repeats;
            list.push(item.value);
        }
        Ok(Json { value: Value::Array(list), repeats })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let (mut map, mut repeats) = (Map::new(), false);
        while let Some((name, json)) = entries.next_entry::<String, Json>()? {
            repeats |= json.repeats;
            repeats |= map.insert(name, json.value).is_some();
        }
        Ok(Json { value: Value::Object(map), repeats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1_000_000i32..1_000_000).prop_map(|half| Value::from(f64::from(half) / 2.0)),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_without_repeated_names_is_read_as_it_is(value in any_json()) {
            let read: Json = serde_json::from_str(&value.to_string()).unwrap();
            prop_assert!(!read.repeats);
            prop_assert_eq!(read.value, value);
        }

        #[test]
        fn a_name_that_stands_twice_is_noticed_at_any_depth(
            one in any_json(), other in any_json(), path in prop::collection::vec(any::<bool>(), 0..20)
        ) {
            let twice = format!(r#"{{"a":{one},"\u0061":{other}}}"#);
            let text = path.iter().fold(twice, |inner, is_list| {
                if *is_list { format!("[0,{inner}]") } else { format!(r#"{{"x":{inner},"y":1}}"#) }
            });
            prop_assert!(serde_json::from_str::<Json>(&text).unwrap().repeats, "{}", text);
        }
    }
}
