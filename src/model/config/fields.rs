//! Typed reading of a JSON object in which every error names the key.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An object of the file with its path, so that every error names the key.
pub struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn root(value: &'a Value) -> Result<Self> {
        let map = value
            .as_object()
            .ok_or_else(|| Error::invalid("the file is not a JSON object"))?;
        Ok(Fields {
            path: String::new(),
            map,
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The value, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub fn value(&self, key: &str) -> Result<&'a Value> {
        self.get(key)
            .ok_or_else(|| Error::invalid(format!("{} is missing", self.key(key))))
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::invalid(format!("{} is not {expected}", self.key(key)))
    }

    pub fn refuse(&self, key: &str, what: &str) -> Error {
        let value = self.map.get(key).unwrap_or(&Value::Null).to_string();
        let shown: String = value.chars().take(60).collect();
        Error::unimplemented(format!(
            "{what} ({} = {shown}) is not implemented",
            self.key(key)
        ))
    }

    pub fn object(&self, key: &str) -> Result<Fields<'a>> {
        let map = self
            .value(key)?
            .as_object()
            .ok_or_else(|| self.wrong(key, "an object"))?;
        Ok(Fields {
            path: format!("{}{key}.", self.path),
            map,
        })
    }

    pub fn text(&self, key: &str) -> Result<&'a str> {
        self.value(key)?
            .as_str()
            .ok_or_else(|| self.wrong(key, "a text"))
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        self.value(key)?
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.wrong(key, "a whole number"))
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| self.size(key))
    }

    /// A side in pixels: one number, or two equal ones.
    pub fn side(&self, key: &str) -> Result<usize> {
        match self.value(key)? {
            Value::Array(sides) => match sides.as_slice() {
                [a, b] if a == b => a
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.wrong(key, "a pair of whole numbers")),
                _ => Err(self.refuse(key, "a shape that is not square")),
            },
            _ => self.size(key),
        }
    }

    pub fn number(&self, key: &str) -> Result<f64> {
        self.value(key)?
            .as_f64()
            .ok_or_else(|| self.wrong(key, "a number"))
    }

    pub fn flag(&self, key: &str) -> Result<bool> {
        self.value(key)?
            .as_bool()
            .ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |_| self.flag(key))
    }

    pub fn must_be_text(&self, key: &str, expected: &str) -> Result<()> {
        if self.text(key)? == expected {
            return Ok(());
        }
        Err(self.refuse(key, &format!("anything but {expected:?}")))
    }

    /// Refuses a list of names that is there and is not exactly `[expected]`.
    pub fn only(&self, key: &str, expected: &str) -> Result<()> {
        let Some(names) = self.get(key) else {
            return Ok(());
        };
        match names.as_array().map(Vec::as_slice) {
            Some([one]) if one.as_str() == Some(expected) => Ok(()),
            _ => Err(self.refuse(key, &format!("anything but {expected:?}"))),
        }
    }
}
