//! What may be chosen for a container, and how it is asked for: `nginx:port=8080`.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;

use super::{AppTemplate, is_word};
use crate::name::{NameError, TemplateName};

/// The value of each parameter of a template.
pub type Values = BTreeMap<String, String>;

/// A parameter of a template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What its value may be.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Without one it has to be given; a secret is then made up.
    #[serde(default)]
    pub default: Option<String>,
    /// One line for people.
    #[serde(default)]
    pub description: String,
}

/// What the value of a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 1 to 65535.
    Port,
    /// A word: nothing in it means anything to a configuration file, so it cannot be more than a value there.
    String,
    /// A word that is not shown.
    Secret,
}

impl Kind {
    /// Whether this is a value of it.
    pub fn takes(self, value: &str) -> bool {
        match self {
            Self::Port => value.parse::<u16>().is_ok_and(|p| p > 0) && !value.starts_with(['0', '+']),
            Self::String => is_word(value.strip_prefix('/').unwrap_or(value), b"._@:/+-"),
            Self::Secret => is_word(value, b"._@:/+-"),
        }
    }

    /// What it takes, for people.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Port => "a port, 1 to 65535",
            Self::String | Self::Secret => {
                "at most 255 letters, digits and . _ @ : / + -, the first a letter, a digit or /"
            }
        }
    }
}

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// There is no such parameter.
    #[error("{app} has no parameter {name}; it has: {}", known.join(", "))]
    Unknown {
        /// The template.
        app: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Not of its type. The value may be a secret and is not shown.
    #[error("{app}: the value of {name} has to be {expected}")]
    Value {
        /// The template.
        app: String,
        /// The parameter.
        name: String,
        /// What it takes.
        expected: &'static str,
    },
    /// It has no default.
    #[error("{app} needs a value: {app}:{name}=VALUE")]
    Missing {
        /// The template.
        app: String,
        /// The parameter.
        name: String,
    },
    /// No secret could be made up; the error names the path.
    #[error(transparent)]
    Random(#[from] io::Error),
}

/// A template as it is asked for: `NAME` or `NAME:PARAMETER=VALUE[:PARAMETER=VALUE…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The template.
    pub name: TemplateName,
    /// The values given.
    pub given: Values,
}

/// Words that ask for no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What follows it.
    #[error("{0:?} after the name of an application template: expected PARAMETER=VALUE")]
    Pair(String),
    /// One parameter twice.
    #[error("parameter {0} is given twice")]
    Twice(String),
}

impl std::str::FromStr for Request {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        // A value may hold a colon; what follows one and has no '=' before the next belongs to the value.
        let (name, mut rest) = text.split_once(':').map_or((text, None), |(n, r)| (n, Some(r)));
        let mut request = Self { name: name.parse()?, given: Values::new() };
        while let Some(pairs) = rest {
            let (key, tail) = pairs.split_once('=').ok_or_else(|| RequestError::Pair(pairs.to_owned()))?;
            let next = tail
                .match_indices(':')
                .find(|(at, _)| tail[at + 1..].split_once('=').is_some_and(|(k, _)| super::text::is_name(k)));
            let value = next.map_or(tail, |(at, _)| &tail[..at]);
            if request.given.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(RequestError::Twice(key.to_owned()));
            }
            rest = next.map(|(at, _)| &tail[at + 1..]);
        }
        Ok(request)
    }
}

/// Letters and digits of a secret that is made up: 24 of 62 are 142 bits.
const SECRET_LENGTH: usize = 24;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl AppTemplate {
    /// A value for every parameter: what was given, the default, or for a secret without one something made up.
    pub fn values(&self, given: &Values) -> Result<Values, ParameterError> {
        let app = || self.name.clone();
        if let Some(name) = given.keys().find(|k| !self.parameters.contains_key(*k)) {
            let known = self.parameters.keys().cloned().collect();
            return Err(ParameterError::Unknown { app: app(), name: name.clone(), known });
        }
        let mut values = Values::new();
        for (name, parameter) in &self.parameters {
            let value = match (given.get(name), &parameter.default, parameter.kind) {
                (Some(value), ..) | (None, Some(value), _) => value.clone(),
                (None, None, Kind::Secret) => secret()?,
                (None, None, _) => return Err(ParameterError::Missing { app: app(), name: name.clone() }),
            };
            if !parameter.kind.takes(&value) {
                let expected = parameter.kind.expected();
                return Err(ParameterError::Value { app: app(), name: name.clone(), expected });
            }
            values.insert(name.clone(), value);
        }
        Ok(values)
    }
}

fn secret() -> io::Result<String> {
    let mut random = fs_err::File::open("/dev/urandom")?;
    let mut text = String::with_capacity(SECRET_LENGTH);
    let mut byte = [0u8];
    while text.len() < SECRET_LENGTH {
        random.read_exact(&mut byte)?;
        // Of 256 the last 8 would make the first letters likelier.
        if let Some(letter) = (byte[0] < 248).then(|| ALPHABET[usize::from(byte[0]) % ALPHABET.len()]) {
            text.push(char::from(letter));
        }
    }
    Ok(text)
}
