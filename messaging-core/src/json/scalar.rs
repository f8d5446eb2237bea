//! Writing scalar text without a JSON value in between, since each call of a cached function does it.

use std::fmt::{self, Display, Write as _};

use serde::ser::{Impossible, Serialize, Serializer};

/// Appends the scalar text of a value; `Ok(false)` and nothing for a null.
///
/// # Errors
/// It is something else, or something that only `serde_json` knows what to make of.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, text: &mut String) -> Result<bool, Other> {
    value.serialize(Writer(text))
}

/// No plain scalar.
#[derive(Debug)]
pub(super) struct Other;

impl Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a plain scalar")
    }
}

impl std::error::Error for Other {}

impl serde::ser::Error for Other {
    fn custom<T: Display>(_message: T) -> Self {
        Self
    }
}

struct Writer<'t>(&'t mut String);

macro_rules! integers {
    ($($method:ident: $type:ty)*) => {
        $(fn $method(self, value: $type) -> Result<bool, Other> {
            self.0.push_str(itoa::Buffer::new().format(value));
            Ok(true)
        })*
    };
}

macro_rules! others {
    ($($method:ident($($argument:ty),*) -> $output:ty;)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$output, Other> {
            Err(Other)
        })*
    };
}

type No = Impossible<bool, Other>;

impl Serializer for Writer<'_> {
    type Ok = bool;
    type Error = Other;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    integers! {
        serialize_i8: i8 serialize_i16: i16 serialize_i32: i32 serialize_i64: i64
        serialize_u8: u8 serialize_u16: u16 serialize_u32: u32 serialize_u64: u64
    }

    others! {
        serialize_f32(f32) -> bool;
        serialize_f64(f64) -> bool;
        serialize_bytes(&[u8]) -> bool;
        serialize_seq(Option<usize>) -> No;
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct(&'static str, usize) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }

    fn serialize_bool(self, value: bool) -> Result<bool, Other> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(true)
    }

    fn serialize_char(self, value: char) -> Result<bool, Other> {
        self.0.push(value);
        Ok(true)
    }

    fn serialize_str(self, value: &str) -> Result<bool, Other> {
        self.0.push_str(value);
        Ok(true)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<bool, Other> {
        write!(self.0, "{value}").map(|()| true).map_err(|_| Other)
    }

    fn serialize_none(self) -> Result<bool, Other> {
        Ok(false)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, Other> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<bool, Other> {
        Ok(false)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<bool, Other> {
        Ok(false)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<bool, Other> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<bool, Other> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<bool, Other> {
        Err(Other)
    }
}
