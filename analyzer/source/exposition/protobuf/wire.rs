//! The protobuf wire format: keys, varints, 64-bit and 32-bit numbers, and stretches with a length.
//!
//! Works on borrowed bytes and knows at which offset of the whole body it stands, so that a refusal
//! can say where. Groups, which were given up before this format existed, are refused.

use super::super::Refusal;

/// Bytes of the longest varint: ten times seven bits hold 64.
const VARINT_BYTES_MAX: usize = 10;

/// A message, or what is left of one.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    bytes: &'a [u8],
    /// Where `bytes` begins in the body.
    offset: usize,
}

/// The value of one field.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// An integer of any kind, or a bool.
    Varint(u64),
    /// A 64-bit number, read as the double that all of ours are.
    Double(f64),
    /// A 32-bit number, of which we read none.
    Short,
    /// A text, a message or packed numbers.
    Bytes(Wire<'a>),
}

impl<'a> Wire<'a> {
    /// A whole body.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Where it begins in the body.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next field and its number; none at the end.
    pub fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Refusal> {
        if self.is_empty() {
            return Ok(None);
        }
        let at = self.offset;
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Double(self.double()?),
            2 => Field::Bytes(self.delimited()?),
            5 => {
                self.take(4, "a 32-bit number")?;
                Field::Short
            }
            _ => return Err(Refusal::NotProtobuf { at, expected: "a field key" }),
        };
        if key >> 3 == 0 {
            return Err(Refusal::NotProtobuf { at, expected: "a field number above 0" });
        }
        Ok(Some((key >> 3, field)))
    }

    /// A length, and the bytes it counts.
    pub fn delimited(&mut self) -> Result<Wire<'a>, Refusal> {
        let at = self.offset;
        let length = self.varint()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.bytes.len() {
            return Err(Refusal::NotProtobuf { at, expected: "a length that ends in the body" });
        }
        let offset = self.offset;
        Ok(Wire { bytes: self.take(length, "bytes")?, offset })
    }

    /// A varint: seven bits a byte, the lowest first.
    pub fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for (index, &byte) in self.bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
            // The tenth byte holds the one bit that is left.
            if index + 1 == VARINT_BYTES_MAX && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.take(index + 1, "a varint")?;
                return Ok(value);
            }
        }
        Err(Refusal::NotProtobuf { at: self.offset, expected: "a varint of at most 64 bits" })
    }

    /// A 64-bit double, the lowest byte first.
    pub fn double(&mut self) -> Result<f64, Refusal> {
        let bytes = self.take(8, "a 64-bit number")?;
        let mut array = [0; 8];
        array.copy_from_slice(bytes);
        Ok(f64::from_le_bytes(array))
    }

    /// The bytes as text.
    pub fn text(&self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.bytes).map_err(|error| Refusal::NotProtobuf {
            at: self.offset + error.valid_up_to(),
            expected: "UTF-8",
        })
    }

    fn take(&mut self, length: usize, expected: &'static str) -> Result<&'a [u8], Refusal> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(Refusal::NotProtobuf { at: self.offset, expected });
        };
        self.bytes = rest;
        self.offset += length;
        Ok(taken)
    }
}

/// The signed integer that a zigzag varint stands for: 0, -1, 1, -2 ...
pub fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
