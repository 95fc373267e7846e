//! The JSON Schemas of the file and of files of tenants, for editors.

use std::borrow::Cow;
use std::collections::HashSet;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::field::{Field, Named};
use super::file::{File, Tenant};

/// The schema as text, with a line end.
pub(super) fn text() -> String {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<File>().to_value();
    drop_null_defaults(&mut schema);
    format!("{schema:#}\n")
}

/// The schema of a file of `tenant_files`, alike.
pub(super) fn tenant_file_text() -> String {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Named<Option<Tenant>>>().to_value();
    schema["minProperties"] = 1.into();
    schema["title"] = "boldgate tenants".into();
    schema["description"] = "A file of boldgate's `tenant_files`: tenants by their names.".into();
    drop_null_defaults(&mut schema);
    format!("{schema:#}\n")
}

/// A key without a default has `null` as one in the generated schema, which no file may hold.
fn drop_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(parts) => {
            parts.retain(|key, part| key != "default" || !part.is_null());
            parts.values_mut().for_each(drop_null_defaults);
        }
        Value::Array(parts) => parts.iter_mut().for_each(drop_null_defaults),
        _ => {}
    }
}

/// All keys of the file that are no names.
pub(super) fn keys() -> HashSet<String> {
    fn collect(schema: &Value, keys: &mut HashSet<String>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        keys.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
        match schema {
            Value::Object(parts) => parts.values().for_each(|part| collect(part, keys)),
            Value::Array(parts) => parts.iter().for_each(|part| collect(part, keys)),
            _ => {}
        }
    }
    let mut keys = HashSet::new();
    let generator = SchemaSettings::draft07().into_generator();
    collect(&generator.into_root_schema_for::<File>().to_value(), &mut keys);
    keys
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}
