//! JSON schemas, as far as the OpenRPC document of the execution APIs uses them.

use regex::Regex;
use serde_json::{Value, json};

/// Whether a value is what a schema describes; only the keywords that the document uses.
pub(crate) fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{path}: {what}: {value}"));
    let list = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
    let fits = |schema: &&Value| check(schema, value, path).is_ok();
    if schema.get("anyOf").is_some() && !list("anyOf").iter().any(|schema| fits(&schema)) {
        return wrong("fits none");
    }
    if schema.get("oneOf").is_some() {
        let all = list("oneOf");
        match all.iter().filter(fits).count() {
            1 => {}
            0 => {
                let why: Vec<_> = all.iter().filter_map(|s| check(s, value, path).err()).collect();
                return Err(format!("none of:\n  {}", why.join("\n  ")));
            }
            _ => return wrong("fits several"),
        }
    }
    for schema in list("allOf") {
        check(&schema, value, path)?;
    }
    if let Some(kind) = schema["type"].as_str() {
        let is = match kind {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64() || value.is_u64(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("a type {other}"),
        };
        if !is {
            return wrong(&format!("is no {kind}"));
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        return wrong(&format!("does not match {pattern}"));
    }
    if schema.get("const").is_some_and(|expected| expected != value)
        || schema.get("enum").is_some() && !list("enum").contains(value)
    {
        return wrong("is another constant");
    }
    check_content(schema, value, path)
}

fn check_content(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            check(items, value, &format!("{path}[{index}]"))?;
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{path}: there is no {name}"));
        }
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => check(schema, value, &path)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{path}: is too much")),
            (None, Some(schema)) if schema.is_object() => check(schema, value, &path)?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn the_checker_tells_right_from_wrong() {
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {
            "a": { "oneOf": [{ "type": "null" }, { "type": "string", "pattern": "^0x[0-9]+$" }] },
            "b": { "type": "array", "items": { "type": "integer" } },
        },
    });
    for right in [json!({ "a": null }), json!({ "a": "0x1", "b": [1, 2] })] {
        assert_eq!(check(&schema, &right, ""), Ok(()));
    }
    for wrong in [
        json!([]),
        json!({}),
        json!({ "a": "x" }),
        json!({ "a": null, "c": 1 }),
        json!({ "a": null, "b": ["1"] }),
    ] {
        assert!(check(&schema, &wrong, "").is_err(), "{wrong}");
    }
}
