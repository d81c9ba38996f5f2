//! Names of settings: which exist, and when two spellings are the same one.

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Whether two spellings name one setting: case, `_` and `-` do not count (`LoginGraceTime`).
pub fn same_key(one: &str, other: &str) -> bool {
    let letters = |key: &str| {
        key.bytes()
            .filter(|byte| !matches!(byte, b'_' | b'-'))
            .map(|byte| byte.to_ascii_lowercase())
            .collect()
    };
    let (one, other): (Vec<u8>, Vec<u8>) = (letters(one), letters(other));
    one == other
}

/// The names of a struct's fields, as serde knows them.
pub fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It never returns a value: all it does is note the names it is asked for.
    let _ = T::deserialize(FieldNames(&mut fields));
    fields
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_count() {
        assert!(same_key("LoginGraceTime", "login_grace_time"));
        assert!(same_key("login-grace-time", "_login_grace_time_"));
        assert!(!same_key("login_grace_times", "login_grace_time"));
    }

    #[test]
    fn structs_tell_their_fields() {
        assert_eq!(fields_of::<crate::config::Legacy>(), ["enabled", "port"]);
        assert!(fields_of::<String>().is_empty());
    }
}
