//! Says where JSON is not what was expected.
//!
//! `serde_json` names the position, and a field only where it is missing. For a person, the path of the value is worth
//! more, so it is found by reading the text once more, on failure only.

/// The error with the path of the value at its position, such as `invalid type: string "x", expected f64 at line 1 column 14
/// (in readings[1].mm_s)`.
pub(crate) fn explain(json: &[u8], error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let path = path_at(json, offset(json, error.line(), error.column()));
    if !path.is_empty() {
        text.push_str(" (in ");
        text.push_str(&path);
        text.push(')');
    }
    text
}

/// Offset of a position; lines and columns count from 1, columns in bytes.
fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let start: usize = json.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    (start + column).min(json.len())
}

/// Where the scan is within an object or an array.
enum Container<'json> {
    /// An object; the key that was read last, as it is written.
    Object(&'json [u8]),
    /// An array; the index.
    Array(usize),
}

/// Path of the value that the first `end` bytes lead to; empty for the whole.
fn path_at(json: &[u8], end: usize) -> String {
    let mut containers: Vec<Container<'_>> = Vec::new();
    let mut position = 0;
    let mut key_next = false;
    while position < end {
        let byte = json[position];
        position += 1;
        match byte {
            b'{' => {
                containers.push(Container::Object(b""));
                key_next = true;
            }
            b'[' => containers.push(Container::Array(0)),
            b'}' | b']' => {
                containers.pop();
                key_next = false;
            }
            b',' if position < end => match containers.last_mut() {
                Some(Container::Array(index)) => *index += 1,
                Some(Container::Object(_)) => key_next = true,
                None => {}
            },
            b'"' => {
                let start = position;
                while position < json.len() && json[position] != b'"' {
                    position += if json[position] == b'\\' { 2 } else { 1 };
                }
                let text = json.get(start..position).unwrap_or_default();
                position += 1;
                if let (true, Some(Container::Object(key))) = (key_next, containers.last_mut()) {
                    *key = text;
                    key_next = false;
                }
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for container in containers {
        match container {
            Container::Object(b"") => {}
            Container::Object(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(std::str::from_utf8(key).unwrap_or_default());
            }
            Container::Array(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Batch {
        #[serde(rename = "readings")]
        _readings: Vec<Reading>,
    }

    #[derive(Debug, Deserialize)]
    struct Reading {
        #[serde(rename = "mm_s")]
        _mm_s: f64,
    }

    #[test]
    fn the_field_and_the_position_are_named() {
        for (json, expected) in [
            (r#"{"readings":[{"mm_s":1},{"mm_s":"x"}]}"#, "at line 1 column 35 (in readings[1].mm_s)"),
            (r#"{"readings":[{"mm_s":1},{"m":2}]}"#, "missing field `mm_s` at line 1 column 31 (in readings[1])"),
            (r#"{"readings":{}}"#, "(in readings)"),
            ("{\n \"readings\": [true]\n}", "line 2 column 18 (in readings[0])"),
            (r#"{"a,}":"]\"","readings":7}"#, "(in readings)"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"", "EOF while parsing a string"),
            ("{\"readings\":\"\\", "EOF"),
            ("nonsense", "expected ident at line 1 column 2"),
        ] {
            let error = serde_json::from_str::<Batch>(json).unwrap_err();
            let explained = explain(json.as_bytes(), &error);
            assert!(explained.contains(expected), "{json}: {explained}");
        }
    }
}
