//! Small helpers for JSON that is written by hand, in vLLM's order of fields.

use std::borrow::Cow;

use serde_json::Value;

/// A text as a JSON string, with its quotes.
pub(super) fn quoted(text: &str) -> Cow<'static, str> {
    Cow::Owned(Value::from(text).to_string())
}

/// A number with a decimal point, as Python prints floats.
pub(super) fn float(value: Option<&Value>, default: f64) -> String {
    format!("{:?}", value.and_then(Value::as_f64).unwrap_or(default))
}

/// A value of the shape that a JSON schema asks for, as JSON: the least that
/// fits `type`, `properties`, `required`, `enum` and `const`.
pub(super) fn example(schema: &Value) -> Value {
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Value::from("tide"),
        Some("integer" | "number") => Value::from(7),
        Some("boolean") => Value::from(true),
        Some("array") => Value::Array(schema.get("items").map(example).into_iter().collect()),
        Some("null") => Value::Null,
        _ => {
            let properties = schema.get("properties").and_then(Value::as_object);
            Value::Object(
                properties
                    .into_iter()
                    .flatten()
                    .map(|(name, schema)| (name.clone(), example(schema)))
                    .collect(),
            )
        }
    }
}

/// Base64 with padding, for embeddings.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| group.get(at).map_or(0, |&byte| usize::from(byte));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS.get(word >> (18 - 6 * place) & 63).copied();
            let padding = place > group.len();
            text.push(char::from(letter.filter(|_| !padding).unwrap_or(b'=')));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_standard_says() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn an_example_fits_its_schema() {
        let schema = serde_json::json!({"type": "object", "properties": {
            "place": {"type": "string"}, "days": {"type": "integer"},
            "unit": {"enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": "boolean"}}
        }});
        assert_eq!(
            example(&schema).to_string(),
            r#"{"days":7,"place":"tide","tags":[true],"unit":"c"}"#
        );
    }
}
