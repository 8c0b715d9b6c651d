//! The values of a file's metadata, read from their bytes when they are asked for.

use anyhow::{Result, bail, ensure};

use super::cursor::Cursor;

/// Arrays in arrays deeper than this are no metadata of a model.
const MAX_DEPTH: usize = 4;

/// One value of the metadata; strings and arrays lie in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Values of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: u32,
    len: u64,
    bytes: &'a [u8],
}

pub(super) const U32: u32 = 4;
pub(super) const I32: u32 = 5;
pub(super) const F32: u32 = 6;
pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

impl<'a> Value<'a> {
    /// The value of kind `kind` at the cursor, checked through and through.
    pub(super) fn read(kind: u32, from: &mut Cursor<'a>, depth: usize) -> Result<Self> {
        Ok(match kind {
            0 => Self::U8(u8::from_le_bytes(from.array()?)),
            1 => Self::I8(i8::from_le_bytes(from.array()?)),
            2 => Self::U16(u16::from_le_bytes(from.array()?)),
            3 => Self::I16(i16::from_le_bytes(from.array()?)),
            U32 => Self::U32(from.u32()?),
            I32 => Self::I32(i32::from_le_bytes(from.array()?)),
            F32 => Self::F32(f32::from_le_bytes(from.array()?)),
            BOOL => match from.array()? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [other] => bail!("byte {} should be 0 or 1, for no or yes, and is {other}", from.at() - 1),
            },
            STRING => Self::String(from.string()?),
            ARRAY => Self::Array(Array::read(from, depth)?),
            10 => Self::U64(from.u64()?),
            11 => Self::I64(i64::from_le_bytes(from.array()?)),
            12 => Self::F64(f64::from_le_bytes(from.array()?)),
            other => bail!("a value before byte {} is of kind {other}; the kinds are 0 to 12", from.at()),
        })
    }

    pub fn as_str(self) -> Option<&'a str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub fn as_bool(self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(flag) } else { None }
    }

    pub fn as_array(self) -> Option<Array<'a>> {
        if let Self::Array(array) = self { Some(array) } else { None }
    }

    /// A whole number of any width that is not negative.
    pub fn as_u64(self) -> Option<u64> {
        self.as_i128().and_then(|number| u64::try_from(number).ok())
    }

    /// A whole number of any width.
    pub fn as_i64(self) -> Option<i64> {
        self.as_i128().and_then(|number| i64::try_from(number).ok())
    }

    fn as_i128(self) -> Option<i128> {
        Some(match self {
            Self::U8(x) => x.into(),
            Self::I8(x) => x.into(),
            Self::U16(x) => x.into(),
            Self::I16(x) => x.into(),
            Self::U32(x) => x.into(),
            Self::I32(x) => x.into(),
            Self::U64(x) => x.into(),
            Self::I64(x) => x.into(),
            _ => return None,
        })
    }

    /// A floating-point number. One of 32 bits becomes the 64-bit number that is written with the same few decimals: 1e-5, not
    /// 9.99999974737875e-6.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::F32(x) => format!("{x:e}").parse().ok(),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }
}

impl<'a> Array<'a> {
    fn read(from: &mut Cursor<'a>, depth: usize) -> Result<Self> {
        ensure!(depth < MAX_DEPTH, "arrays lie in arrays more than {MAX_DEPTH} deep before byte {}", from.at());
        let kind = from.u32()?;
        let width = match kind {
            0 | 1 | BOOL => 1,
            2 | 3 => 2,
            U32 | I32 | F32 => 4,
            10..=12 => 8,
            // Length alone; kind and length alone.
            STRING => 8,
            ARRAY => 12,
            other => bail!("an array before byte {} is of kind {other}; the kinds are 0 to 12", from.at()),
        };
        let len = from.count("values", width)?;
        let start = from.at();
        match kind {
            BOOL | STRING | ARRAY => {
                for _ in 0..len {
                    Value::read(kind, from, depth + 1)?;
                }
            }
            _ => drop(from.take(len * width)?),
        }
        Ok(Self { kind, len, bytes: from.since(start) })
    }

    pub fn len(self) -> u64 {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The values in their order.
    pub fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut from = Cursor::new(self.bytes, 0);
        // What could be read once can be read again.
        (0..self.len).map_while(move |_| Value::read(self.kind, &mut from, 1).ok())
    }

    /// The strings, when it is of strings.
    pub fn strings(self) -> Option<impl Iterator<Item = &'a str>> {
        (self.kind == STRING).then(|| self.values().filter_map(Value::as_str))
    }
}
