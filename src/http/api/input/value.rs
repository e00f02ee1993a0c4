//! A deserializer whose errors are data, so that no message depends on the wording of a library.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde_json::Value;

/// The input of a deserialization.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Json(&'a Value),
    /// The parameters of a query.
    Pairs(&'a [(String, String)]),
    /// The value of a parameter.
    Text(&'a str),
}

/// Why an input was rejected.
#[derive(Debug)]
pub(super) struct Fault {
    /// The path to the member, outermost first.
    path: Vec<Step>,
    what: What,
}

#[derive(Debug)]
enum Step {
    Member(String),
    Index(usize),
}

#[derive(Debug)]
enum What {
    Wrong {
        found: String,
        takes: &'static str,
    },
    Missing(&'static str),
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
    /// An error that a type of ours reports in its own words.
    Other(String),
}

/// Text from outside, shortened and without control characters.
pub(super) fn shown(text: &str) -> String {
    const MAX: usize = 40;
    let cut = if text.chars().count() > MAX { "…" } else { "" };
    format!("{}{cut}", text.chars().take(MAX).collect::<String>().escape_debug())
}

impl Fault {
    fn new(what: What) -> Self {
        Self { path: Vec::new(), what }
    }

    fn below(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }

    /// Describes the fault. `noun` names the parts of the input: `member` or `parameter`.
    pub(super) fn describe(&self, noun: &str) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Member(name) if path.is_empty() => path.push_str(&shown(name)),
                Step::Member(name) => path.push_str(&format!(".{}", shown(name))),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        let subject = if path.is_empty() { "the body".to_owned() } else { format!("`{path}`") };
        let within = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
        match &self.what {
            What::Wrong { found, takes } => format!("{subject} is {found}: it takes {takes}"),
            What::Missing(name) => format!("the {noun} `{name}` is missing{within}"),
            What::Unknown { name, known } => {
                format!("there is no {noun} `{}`{within}: use {}", shown(name), alternatives(known))
            }
            What::Other(text) => format!("{subject}: {text}"),
        }
    }
}

fn alternatives(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe("member"))
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::new(What::Other(format!("{found} does not fit")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing(field))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::Unknown { name: field.to_owned(), known: expected })
    }
}

impl<'a> Input<'a> {
    fn wrong(self, takes: &'static str) -> Fault {
        let text = |text: &str| format!("the text \"{}\"", shown(text));
        let found = match self {
            Self::Json(Value::Null) => "null".to_owned(),
            Self::Json(Value::Bool(value)) => value.to_string(),
            Self::Json(Value::Number(number)) => format!("the number {number}"),
            Self::Json(Value::String(value)) => text(value),
            Self::Json(Value::Array(_)) => "a list".to_owned(),
            Self::Json(Value::Object(_)) | Self::Pairs(_) => "an object".to_owned(),
            Self::Text(value) => text(value),
        };
        Fault::new(What::Wrong { found, takes })
    }

    fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Json(value) => value.as_str(),
            Self::Text(text) => Some(text),
            Self::Pairs(_) => None,
        }
    }

    fn as_bool(self) -> Option<bool> {
        match self {
            Self::Json(value) => value.as_bool(),
            Self::Text(text) => text.parse().ok(),
            Self::Pairs(_) => None,
        }
    }

    fn as_u64(self) -> Option<u64> {
        match self {
            Self::Json(value) => value.as_u64(),
            Self::Text(text) => text.parse().ok(),
            Self::Pairs(_) => None,
        }
    }

    fn visit_members<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let members: Vec<(&str, Self)> = match self {
            Self::Json(Value::Object(members)) => {
                members.iter().map(|(name, value)| (name.as_str(), Input::Json(value))).collect()
            }
            Self::Pairs(pairs) => pairs.iter().map(|(name, value)| (name.as_str(), Input::Text(value))).collect(),
            _ => return Err(self.wrong("an object")),
        };
        let members =
            members.into_iter().map(|(name, value)| (name, At { input: value, step: Step::Member(name.to_owned()) }));
        visitor.visit_map(MapDeserializer::new(members))
    }
}

/// A part of an input, with its place in the whole.
struct At<'a> {
    input: Input<'a>,
    step: Step,
}

impl<'de> IntoDeserializer<'de, Fault> for At<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Forwards to the input, and adds the place to a fault.
macro_rules! at {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Fault> {
            let Self { input, step } = self;
            input.$method($($argument,)* visitor).map_err(|fault| fault.below(step))
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    at! {
        deserialize_any(); deserialize_bool(); deserialize_u16(); deserialize_u32(); deserialize_u64();
        deserialize_str(); deserialize_string(); deserialize_option(); deserialize_seq(); deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_ignored_any();
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
        identifier
    }
}

/// Reads a whole number.
macro_rules! number {
    ($($method:ident $type:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.as_u64().and_then(|number| <$type>::try_from(number).ok());
            visitor.$visit(number.ok_or_else(|| self.wrong("a whole number"))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Input<'_> {
    type Error = Fault;

    number! {
        deserialize_u16 u16, visit_u16;
        deserialize_u32 u32, visit_u32;
        deserialize_u64 u64, visit_u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Json(Value::Object(_)) | Self::Pairs(_) => self.visit_members(visitor),
            Self::Json(Value::Array(_)) => self.deserialize_seq(visitor),
            Self::Json(Value::Bool(value)) => visitor.visit_bool(*value),
            Self::Json(Value::Null) => visitor.visit_unit(),
            Self::Json(Value::Number(_)) => self.deserialize_u64(visitor),
            Self::Json(Value::String(text)) => visitor.visit_str(text),
            Self::Text(text) => visitor.visit_str(text),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.as_bool().ok_or_else(|| self.wrong("true or false"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.as_str().ok_or_else(|| self.wrong("a text"))?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Self::Json(Value::Null) = self { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Self::Json(Value::Array(items)) = self else { return Err(self.wrong("a list")) };
        let at = |(index, item)| At { input: Input::Json(item), step: Step::Index(index) };
        visitor.visit_seq(SeqDeserializer::new(items.iter().enumerate().map(at)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_members(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit_members(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
        identifier
    }
}
