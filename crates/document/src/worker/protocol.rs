//! What parent and worker say to one another.
//!
//! A message is a head of twelve bytes (length of the JSON part in 4, length of the blob in 8,
//! little-endian), the JSON part, and the blob: file bytes one way, RGB pixels the other. Either
//! side bounds both lengths before it believes them, and memory grows with the bytes that arrive,
//! not with the lengths announced.

use std::io::{self, Error, ErrorKind, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Trouble;
use crate::limits::Limits;
use crate::pdf::{OpenFailure, Want};
use crate::text::PageText;

/// Version of the protocol. Parent and worker are the same program as a rule, but an upgrade may
/// replace the program while it runs.
pub(crate) const PROTOCOL: u32 = 1;

/// Longest JSON part: the words of a page of 200 000 glyphs take about 20 MB.
const MAX_JSON_BYTES: u32 = 64 << 20;

/// The parent's first message; the blob is the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`PROTOCOL`].
    pub(crate) protocol: u32,
    /// What the file may cost.
    pub(crate) limits: Limits,
    /// The password, if one was given.
    pub(crate) password: Option<String>,
}

/// The parent's later messages, without a blob.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Read a page, counting from 0.
    Page {
        /// The page.
        index: usize,
        /// What is wanted of it.
        want: Want,
    },
}

/// The worker's messages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The file is open.
    Opened {
        /// Number of pages.
        pages: usize,
        /// The document's title.
        title: Option<String>,
    },
    /// The file could not be opened; the worker ends.
    NotOpened(OpenFailure),
    /// A page; the blob is its pixels, three bytes each, row by row.
    Page {
        /// Pixels, where a picture was wanted.
        size: Option<(u32, u32)>,
        /// Size in points.
        points: (f32, f32),
        /// The words.
        text: PageText,
    },
    /// The page could not be read; the worker goes on.
    NoPage(Trouble),
}

/// Writes a message and flushes.
pub(crate) fn write(out: &mut impl Write, json: &impl Serialize, blob: &[u8]) -> io::Result<()> {
    write_head(out, json, blob.len() as u64)?;
    out.write_all(blob)?;
    out.flush()
}

/// Writes a message up to its blob, of which `blob_bytes` must follow.
pub(crate) fn write_head(
    out: &mut impl Write,
    json: &impl Serialize,
    blob_bytes: u64,
) -> io::Result<()> {
    let json = serde_json::to_vec(json)?;
    let json_bytes = u32::try_from(json.len())
        .ok()
        .filter(|n| *n <= MAX_JSON_BYTES)
        .ok_or_else(|| invalid("a message is too long"))?;
    out.write_all(&json_bytes.to_le_bytes())?;
    out.write_all(&blob_bytes.to_le_bytes())?;
    out.write_all(&json)
}

/// Reads a message up to its blob, whose length is returned and not yet to be trusted.
pub(crate) fn read_head<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<(T, u64)> {
    let mut head = [0; 12];
    input.read_exact(&mut head)?;
    read_json(head, input)
}

/// Reads the next request; `None` where the input ended between messages.
pub(crate) fn read_request(input: &mut impl Read) -> io::Result<Option<Request>> {
    let mut head = [0; 12];
    let mut got = 0;
    while got < head.len() {
        match input.read(&mut head[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    match read_json(head, input)? {
        (request, 0) => Ok(Some(request)),
        (_, _) => Err(invalid("a request has a blob")),
    }
}

fn read_json<T: DeserializeOwned>(head: [u8; 12], input: &mut impl Read) -> io::Result<(T, u64)> {
    let [a, b, c, d, blob @ ..] = head;
    let json_bytes = u32::from_le_bytes([a, b, c, d]);
    if json_bytes > MAX_JSON_BYTES {
        return Err(invalid("a message is too long"));
    }
    let json = read_exactly(input, u64::from(json_bytes))?;
    Ok((serde_json::from_slice(&json)?, u64::from_le_bytes(blob)))
}

/// Reads a blob of `bytes`, if that is at most `limit`.
pub(crate) fn read_blob(input: &mut impl Read, bytes: u64, limit: u64) -> io::Result<Vec<u8>> {
    if bytes > limit {
        return Err(invalid("a message's data are too long"));
    }
    read_exactly(input, bytes)
}

fn read_exactly(input: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    /// Allocated at once; more is allocated as it arrives.
    const AT_ONCE: u64 = 64 << 20;
    let mut data = Vec::with_capacity(bytes.min(AT_ONCE) as usize);
    input.by_ref().take(bytes).read_to_end(&mut data)?;
    if data.len() as u64 == bytes {
        Ok(data)
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let request = Request::Page {
            index: 7,
            want: Want::Picture { longest_edge: 99 },
        };
        let mut wire = Vec::new();
        write(&mut wire, &request, &[]).unwrap();
        let Some(Request::Page { index, want }) = read_request(&mut wire.as_slice()).unwrap()
        else {
            panic!("no request");
        };
        assert_eq!((index, want), (7, Want::Picture { longest_edge: 99 }));
        assert!(read_request(&mut &wire[..0]).unwrap().is_none());
        for cut in 1..wire.len() {
            assert!(read_request(&mut &wire[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut huge = [0xff; 12];
        assert!(read_head::<Answer>(&mut &huge[..]).is_err());
        huge[..4].copy_from_slice(&2_u32.to_le_bytes());
        assert!(read_head::<Answer>(&mut &huge[..]).is_err());
        assert!(read_blob(&mut &[0; 3][..], u64::MAX, 1 << 20).is_err());
        assert!(read_blob(&mut &[0; 3][..], 1 << 19, 1 << 20).is_err());
        assert_eq!(read_blob(&mut &[1, 2, 3][..], 2, 2).unwrap(), [1, 2]);
    }
}
