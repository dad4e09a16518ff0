//! A small encoder of the delimited protobuf exposition, field by field as its definition has them.

use rollgate::engine::native::NativeHistogram;

/// Bytes of one message.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn varint(mut self, number: u64, value: u64) -> Self {
        self.put(number << 3);
        self.put(value);
        self
    }

    pub fn zigzag(self, number: u64, value: i64) -> Self {
        self.varint(number, ((value << 1) ^ (value >> 63)) as u64)
    }

    pub fn double(mut self, number: u64, value: f64) -> Self {
        self.put(number << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, number: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.put(number << 3 | 2);
        self.delimited(bytes.as_ref())
    }

    pub fn message(self, number: u64, message: Message) -> Self {
        self.bytes(number, message.0)
    }

    fn delimited(mut self, bytes: &[u8]) -> Self {
        self.put(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A family with its length in front, as it stands in a body.
pub fn family(name: &str, kind: u64, metrics: Vec<Message>) -> Vec<u8> {
    let head = Message::default().bytes(1, name).bytes(2, "help").varint(3, kind);
    let family = metrics.into_iter().fold(head, |family, metric| family.message(4, metric));
    Message::default().delimited(&family.0).0
}

/// A metric with labels and its value in the field of its kind.
pub fn metric(labels: &[(&str, &str)], kind: u64, value: Message) -> Message {
    let pair = |(name, value): &(&str, &str)| Message::default().bytes(1, name).bytes(2, value);
    let labels = labels.iter().fold(Message::default(), |metric, one| metric.message(1, pair(one)));
    labels.message(kind, value)
}

/// A counter, gauge or untyped: a double in field 1.
pub fn number(value: f64) -> Message {
    Message::default().double(1, value)
}

/// The sparse part of a histogram: one span per run of indices, counts as differences.
pub fn native(histogram: &NativeHistogram) -> Message {
    let mut spans: Vec<(i64, u64)> = Vec::new();
    let (mut deltas, mut next, mut last) = (Vec::new(), 0, 0);
    for &(index, count) in &histogram.buckets {
        match spans.last_mut() {
            Some((_, length)) if i64::from(index) == next => *length += 1,
            Some(_) | None => spans.push((i64::from(index) - next, 1)),
        }
        next = i64::from(index) + 1;
        deltas.push(count as i64 - last);
        last = count as i64;
    }
    if spans.is_empty() {
        spans.push((0, 0));
    }
    let message = Message::default()
        .varint(1, histogram.total() as u64)
        .double(2, 1.0)
        .zigzag(5, histogram.schema.into())
        .double(6, histogram.zero_threshold)
        .varint(7, histogram.zero_count as u64);
    let message = spans.iter().fold(message, |message, (offset, length)| {
        message.message(12, Message::default().zigzag(1, *offset).varint(2, *length))
    });
    deltas.iter().fold(message, |message, delta| message.zigzag(13, *delta))
}

/// What announces such a body.
pub const CONTENT_TYPE: &str = "application/vnd.google.protobuf; \
                                proto=io.prometheus.client.MetricFamily; encoding=delimited";
