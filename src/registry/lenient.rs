//! Lenient JSON of registries with bounded memory: only the wanted members are kept.
//!
//! A member of another type than expected counts as absent. A body of 4 MiB can contain two million values, so no value becomes a
//! `serde_json::Value`.

use std::fmt::Formatter;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Implements the methods of a visitor for unwanted types.
macro_rules! ignore {
    ($($kind:ident)*) => { $(ignore!(@ $kind);)* };
    (@ bool) => { fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ integers) => {
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
    };
    (@ floats) => { fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ strings) => { fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ null) => { fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ lists) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (@ objects) => {
        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

/// A text; `None`: absent, of another type, or longer than 1,024 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Wanted;
        impl<'de> Visitor<'de> for Wanted {
            type Value = Text;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text((text.len() <= 1024).then(|| text.to_owned())))
            }
            ignore!(bool integers floats null lists objects);
        }
        deserializer.deserialize_any(Wanted)
    }
}

/// A number that is not negative; `None`: absent, or of another type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Wanted;
        impl<'de> Visitor<'de> for Wanted {
            type Value = Count;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Count, E> {
                Ok(Count(Some(number)))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
                Ok(Count(None))
            }
            ignore!(bool floats strings null lists objects);
        }
        deserializer.deserialize_any(Wanted)
    }
}

/// An object; the default if it is absent, or of another type.
#[derive(Debug, Clone, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Wanted<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Wanted<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object)).map(Object)
            }
            ignore!(bool integers floats strings null lists);
        }
        deserializer.deserialize_any(Wanted(PhantomData))
    }
}

/// The wanted elements of a list.
pub(super) trait Wanted: Default {
    type Element;
    /// Adds an element. Returns whether more are wanted.
    fn add(&mut self, element: Self::Element) -> bool;
}

/// A list that keeps only the wanted elements; `None`: absent, or of another type.
#[derive(Debug, Clone, Default)]
pub(super) struct List<W>(pub(super) Option<W>);

impl<'de, W> Deserialize<'de> for List<W>
where
    W: Wanted,
    W::Element: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<W>(PhantomData<W>);
        impl<'de, W> Visitor<'de> for Elements<W>
        where
            W: Wanted,
            W::Element: Deserialize<'de>,
        {
            type Value = List<W>;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<W>, A::Error> {
                let mut wanted = W::default();
                while let Some(element) = list.next_element()? {
                    if !wanted.add(element) {
                        while list.next_element::<IgnoredAny>()?.is_some() {}
                        break;
                    }
                }
                Ok(List(Some(wanted)))
            }
            ignore!(bool integers floats strings null objects);
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Sample {
        text: Text,
        count: Count,
        inner: Object<Inner>,
        list: List<FirstTwo>,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Inner {
        text: Text,
    }

    #[derive(Debug, Default)]
    struct FirstTwo(Vec<Text>);

    impl Wanted for FirstTwo {
        type Element = Text;
        fn add(&mut self, element: Text) -> bool {
            self.0.push(element);
            self.0.len() < 2
        }
    }

    #[test]
    fn members_of_another_type_count_as_absent() {
        let others = ["null", "true", "-1", "1.5", "[[1]]", r#"{"a":{"b":[]}}"#];
        for other in others.into_iter().chain([r#""word""#, "7"]) {
            let json = format!(r#"{{"text":{other},"count":{other},"inner":{other},"list":{other},"more":[{other}]}}"#);
            let sample: Sample = serde_json::from_str(&json).unwrap();
            assert_eq!(sample.text.0.as_deref(), (other == r#""word""#).then_some("word"), "{other}");
            assert_eq!(sample.count.0, (other == "7").then_some(7), "{other}");
            assert_eq!(sample.inner.0.text.0, None, "{other}");
            assert_eq!(sample.list.0.is_some(), other.starts_with('['), "{other}");
        }
    }

    #[test]
    fn list_keeps_the_wanted_elements_and_reads_over_the_others() {
        let json = r#"{"list":["a","b",{"c":[1,2]},"d"],"inner":{"text":"x","other":{}},"count":3}"#;
        let sample: Sample = serde_json::from_str(json).unwrap();
        let texts: Vec<Option<String>> = sample.list.0.unwrap().0.into_iter().map(|text| text.0).collect();
        assert_eq!(texts, [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!((sample.inner.0.text.0.as_deref(), sample.count.0), (Some("x"), Some(3)));
    }

    #[test]
    fn long_texts_are_not_kept() {
        let json = format!(r#"{{"text":"{}"}}"#, "a".repeat(1025));
        assert_eq!(serde_json::from_str::<Sample>(&json).unwrap().text.0, None);
    }
}
