//! Holds answers to the OpenAPI document, strictly: a field that the document does not have is as
//! wrong as one that is missing.

use serde_json::{Map, Value};

/// What is wrong with the answer to an operation; `None` if nothing is.
pub fn violation(
    document: &Value,
    template: &str,
    method: &str,
    status: u16,
    media_type: Option<&str>,
    body: &[u8],
) -> Option<String> {
    let operation = &document["paths"][template][method];
    if operation.is_null() {
        return Some(format!("{method} {template} is not in the document"));
    }
    let response = &operation["responses"][status.to_string()];
    if response.is_null() {
        return Some(format!("{method} {template} does not document {status}"));
    }
    let Some(content) = response["content"].as_object() else {
        return (!body.is_empty()).then(|| format!("{method} {template} {status} has no body"));
    };
    let media_type = media_type.unwrap_or_default();
    let Some(entry) = content.get(media_type) else {
        return Some(format!("{method} {template} {status}: undocumented type {media_type}"));
    };
    if !media_type.ends_with("json") {
        return None;
    }
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Some(format!("{method} {template} {status}: not JSON: {error}")),
    };
    check(document, &entry["schema"], &value, "body")
        .err()
        .map(|wrong| format!("{method} {template} {status}: {wrong}"))
}

/// Whether `value` is what `schema` says.
pub fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let wrong: Vec<String> =
            choices.iter().filter_map(|choice| check(document, choice, value, at).err()).collect();
        return match wrong.len() < choices.len() {
            true => Ok(()),
            false => Err(format!("{at} fits none of its choices: {}", wrong.join("; "))),
        };
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at} is {value}, not one of {}", schema["enum"]));
    }
    check_type(schema, value, at)?;
    match value {
        Value::Object(object) => check_object(document, schema, object, at),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(n, item)| {
            check(document, &schema["items"], item, &format!("{at}[{n}]"))
        }),
        _ => Ok(()),
    }
}

fn check_type(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |wanted: &&str| match *wanted {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match types.iter().any(fits) {
        true => Ok(()),
        false => Err(format!("{at} is {value}, not {types:?}")),
    }
}

fn check_object(
    document: &Value,
    schema: &Value,
    object: &Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    let parts: Vec<&Value> = match schema["allOf"].as_array() {
        Some(parts) => parts.iter().map(|part| resolve(document, part)).collect(),
        None => vec![schema],
    };
    let open = parts.iter().all(|part| part["properties"].is_null());
    for part in &parts {
        for name in part["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(format!("{at} has no {name}"));
            }
        }
    }
    for (name, value) in object {
        let place = format!("{at}.{name}");
        let known = parts.iter().find_map(|part| part["properties"].get(name));
        match known {
            Some(schema) => check(document, schema, value, &place)?,
            None if open => {
                let other = &schema["additionalProperties"];
                if other.is_object() {
                    check(document, other, value, &place)?;
                }
            }
            None => return Err(format!("{place} is not in the document")),
        }
    }
    Ok(())
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => resolve(
            document,
            document.pointer(path.trim_start_matches('#')).expect("references resolve"),
        ),
        None => schema,
    }
}
