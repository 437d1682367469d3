//! TensorBoard's event records: each is a protocol buffer (`event.proto`, `summary.proto`) between its length and checksums, as a TFRecord file has them.

use prost::Message;
use serde::Deserialize;

/// An event as it is written. `wall_time`: seconds since 1970; `step` of the optimiser.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// Seconds since 1970.
    pub wall_time: f64,
    /// Optimiser steps done.
    #[serde(default)]
    pub step: i64,
    /// The first record of a file.
    #[serde(default)]
    pub version: bool,
    /// Whether what was written of later steps is to be forgotten: the run goes on from here.
    #[serde(default)]
    pub restart: bool,
    /// Names and values.
    #[serde(default)]
    pub scalars: Vec<(String, f32)>,
}

#[derive(Clone, PartialEq, Message)]
struct EventMessage {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `Summary.Value` with a number in it.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: START.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `event` as a record of an event file.
pub fn record(event: &Event) -> Vec<u8> {
    let &Event { wall_time, step, .. } = event;
    let what = if event.version {
        What::FileVersion("brain.Event:2".into())
    } else if event.restart {
        What::SessionLog(SessionLog { status: 1 })
    } else {
        let scalar = |(tag, value): &(String, f32)| Scalar { tag: tag.clone(), simple_value: Some(*value) };
        What::Summary(Summary { value: event.scalars.iter().map(scalar).collect() })
    };
    frame(&EventMessage { wall_time, step, what: Some(what) }.encode_to_vec())
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// CRC32C, turned and shifted, so that a checksum of data with checksums in it is another one.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of every file that TensorFlow writes, but for its time: known bytes.
    #[test]
    fn the_head_of_a_file() {
        let event = Event { wall_time: 0.0, step: 0, version: true, restart: false, scalars: Vec::new() };
        let record = record(&event);
        let data = &record[12..record.len() - 4];
        assert_eq!(data, b"\x1a\x0dbrain.Event:2");
        assert_eq!(record[..8], 15u64.to_le_bytes());
    }

    /// RFC 3720, B.4: the CRC32C of 32 bytes of zeros is 0x8a9136aa.
    #[test]
    fn checksums_are_masked() {
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn numbers_are_where_the_schema_has_them() {
        let scalars = vec![("loss".to_owned(), 1.5), ("zero".to_owned(), 0.0)];
        let record = record(&Event { wall_time: 2.0, step: 300, version: false, restart: false, scalars });
        let data = &record[12..record.len() - 4];
        let expected = b"\x09\0\0\0\0\0\0\0\x40\x10\xac\x02\x2a\x1a\x0a\x0b\x0a\x04loss\x15\0\0\xc0\x3f\x0a\x0b\x0a\x04zero\x15\0\0\0\0";
        assert_eq!(data, expected.as_slice(), "{data:x?}");
    }
}
