//! What refuses a body as a whole: too large, not an exposition, cut short.
//!
//! Looks at the ends of a body only, so that it costs nothing beside reading it; what needs all
//! lines (too many of them broken, too many samples) is found on the way by the reader.

use memchr::{memchr, memmem, memrchr};

use super::{Format, Limits, check_line, line, line_number, trim_end};

/// Why a whole body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was answered.
    #[error("the body is empty, expected metric lines")]
    Empty,
    /// Over [`Limits::body_bytes`].
    #[error("the body has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// An HTML page.
    #[error("the body is an HTML page, expected metric lines")]
    Html,
    /// Still compressed.
    #[error("the body is gzip data, expected metric lines")]
    Compressed,
    /// Over [`Limits::broken_utf8_lines`].
    #[error("more than {limit} lines are not UTF-8, expected text (first at line {first_line})")]
    NotUtf8 {
        /// The limit.
        limit: u32,
        /// The first such line, counted from 1.
        first_line: u64,
    },
    /// No line of it reads as a sample.
    #[error("no line reads as a metric sample; {first}")]
    NotExposition {
        /// The first refused line, in words.
        first: String,
    },
    /// OpenMetrics without its last line: the body was cut.
    #[error("the body does not end with `# EOF`, expected in OpenMetrics")]
    NoEof,
    /// OpenMetrics that goes on after its last line.
    #[error("text follows `# EOF` at line {line}, expected the end of the body")]
    TextAfterEof {
        /// The line of `# EOF`, counted from 1.
        line: u64,
    },
    /// Protobuf that breaks its own format, or that is none.
    #[error("the body is not delimited protobuf: at byte {at}, expected {expected}")]
    NotProtobuf {
        /// Offset in the body.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// Over [`Limits::samples`].
    #[error("more than {limit} samples are wanted of one body")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
}

impl Refusal {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::Empty => "is the metrics path right, and is anything registered",
            Refusal::TooLarge { .. } => "drop high-cardinality labels, or raise the body limit",
            Refusal::Html => "this is often a login or error page: check the path and the port",
            Refusal::Compressed => "the target compresses without saying so in Content-Encoding",
            Refusal::NotUtf8 { .. } => "expositions are UTF-8; is this protobuf or another charset",
            Refusal::NotExposition { .. } => "is this the metrics path",
            Refusal::NoEof => "the answer was cut short, or its content type is wrong",
            Refusal::TextAfterEof { .. } => "two expositions may have been joined",
            Refusal::NotProtobuf { .. } => "the answer was cut short, or its content type is wrong",
            Refusal::TooManySamples { .. } => "select fewer series, or raise the sample limit",
        }
    }
}

/// Refuses what no line of can be trusted, and cuts the closing `# EOF` of OpenMetrics off.
pub(super) fn check_whole<'a>(
    body: &'a [u8],
    format: Format,
    limits: &Limits,
) -> Result<&'a [u8], Refusal> {
    const EOF: &[u8] = b"# EOF";
    if body.len() > limits.body_bytes {
        return Err(Refusal::TooLarge { found: body.len(), limit: limits.body_bytes });
    }
    let Some(first) = body.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return Err(Refusal::Empty);
    };
    if body[first] == b'<' {
        return Err(Refusal::Html);
    }
    if body.starts_with(&[0x1f, 0x8b]) {
        return Err(Refusal::Compressed);
    }
    match format {
        Format::Text => Ok(body),
        Format::OpenMetrics => {
            let text = body.strip_suffix(b"\n").unwrap_or(body);
            let last = memrchr(b'\n', text).map_or(0, |newline| newline + 1);
            if &text[last..] == EOF {
                return Ok(&text[..last]);
            }
            let early = memmem::find_iter(body, EOF).find(|&at| at == 0 || body[at - 1] == b'\n');
            Err(match early {
                Some(at) => Refusal::TextAfterEof { line: line_number(body, at) },
                None => Refusal::NoEof,
            })
        }
    }
}

/// Sample lines at the head of a body of which one must read, when only some names are wanted.
///
/// The rest of such a body is skipped unread, and an error page in plain words must not pass for a
/// target that merely lacks the wanted names.
const HEAD_LINES: usize = 8;

/// Comment and blank lines after which the head is taken as good.
const HEAD_COMMENTS: usize = 64;

pub(super) fn check_head(body: &[u8], format: Format, limits: &Limits) -> Result<(), Refusal> {
    let mut start = 0;
    let mut tried = 0;
    let mut first = String::new();
    for number in 1..=HEAD_LINES + HEAD_COMMENTS {
        if start >= body.len() || tried == HEAD_LINES {
            break;
        }
        let rest = &body[start..];
        let raw = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
        start += raw.len() + 1;
        let line = trim_end(raw, format);
        if matches!(line.trim_ascii_start().first(), None | Some(b'#')) {
            continue;
        }
        match check_line(line, limits)
            .and_then(|line| line::sample(line, format, &mut Vec::new(), limits).map(|_| ()))
        {
            Ok(()) => return Ok(()),
            Err(fault) => {
                if tried == 0 {
                    first = fault.words(line, number as u64);
                }
                tried += 1;
            }
        }
    }
    if tried == 0 { Ok(()) } else { Err(Refusal::NotExposition { first }) }
}
