//! Where results go, and in which form.

use crate::Error;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::Write as _;

/// Forms of output, by kubectl's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
    /// Only `resource/name`, one a line
    Name,
}

/// Writes to standard output. Who closed it wants no more of it: that is no error.
pub fn print(text: &str) -> Result<(), Error> {
    if cfg!(test) {
        // The only way that the test harness keeps to itself.
        #[allow(clippy::print_stdout, reason = "the results of commands in tests")]
        {
            print!("{text}");
        }
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Tells the person something that is no result.
pub fn note(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An object or a `v1` `List` as JSON or YAML.
pub fn document(value: &Value, format: Format) -> Result<String, Error> {
    if format == Format::Yaml {
        return serde_saphyr::to_string(value)
            .map_err(|e| Error::Input(format!("the answer does not fit into YAML: {e}")));
    }
    Ok(format!("{value:#}\n"))
}

/// Objects one after the other, as they come.
pub fn stream(values: &[Value], format: Format) -> Result<String, Error> {
    let mut text = String::new();
    for value in values {
        if format == Format::Yaml {
            text.push_str("---\n");
        }
        text.push_str(&document(value, format)?);
    }
    Ok(text)
}

/// Objects as a `List`, as kubectl shows several.
pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// An object without what only machines read.
pub fn for_people(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_reads_back() {
        let value = list(&[for_people(json!({
            "kind": "X", "metadata": {"name": "n", "managedFields": []}, "a": ["yes", "0x1", "", "a: b\n", 1.5, null, true, "123", {}, []],
        }))]);
        let back: Value = serde_saphyr::from_str(&document(&value, Format::Yaml).unwrap()).unwrap();
        assert_eq!(back, value);
        assert_eq!(back["items"][0]["metadata"], json!({"name": "n"}));
    }
}
