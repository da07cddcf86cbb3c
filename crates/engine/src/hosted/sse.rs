//! Server-sent events, as far as chat completions use them: the `data` fields, one event at a time.
//!
//! The stream comes in pieces that may end anywhere, in the middle of a character too. Lines end in LF, CRLF
//! or CR; a field `data` may span several lines; comments and other fields say nothing to us.

/// An event longer than this is no token.
const MOST_EVENT_BYTES: usize = 8 << 20;

/// What a stream of events cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An event has no end.
    TooLong,
    /// Bytes that are no UTF-8.
    NotText,
}

/// Puts events together.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The line that has begun.
    line: Vec<u8>,
    /// `data` lines of the event that has begun.
    data: Option<String>,
    /// The byte before was CR, so an LF belongs to it.
    after_cr: bool,
}

impl Events {
    /// Takes a piece of the stream; hands out the events it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<String>, Fault> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                byte => {
                    let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
                    if held >= MOST_EVENT_BYTES {
                        return Err(Fault::TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    /// The stream has ended. What has begun is given too: some servers leave the last blank line out.
    pub(super) fn finish(&mut self) -> Result<Option<String>, Fault> {
        let event = self.end_line()?;
        Ok(event.or_else(|| self.data.take()))
    }

    fn end_line(&mut self) -> Result<Option<String>, Fault> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let line = std::str::from_utf8(&line).map_err(|_| Fault::NotText)?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<String>, Fault> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for piece in pieces {
            found.extend(events.push(piece)?);
        }
        found.extend(events.finish()?);
        Ok(found)
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream =
            ": hello\n\ndata: {\"a\":\"é\"}\n\nevent: x\r\ndata:one\r\ndata: two\r\rdata: [DONE]";
        let expected = ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"];
        assert_eq!(all(&[stream.as_bytes()]).unwrap(), expected);
        let single: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(all(&single).unwrap(), expected);
        for at in 0..stream.len() {
            let (a, b) = stream.as_bytes().split_at(at);
            assert_eq!(all(&[a, b]).unwrap(), expected, "{at}");
        }
    }

    #[test]
    fn what_is_no_event_is_told() {
        assert_eq!(all(&[b"data: \xff\n\n"]), Err(Fault::NotText));
        assert_eq!(
            all(&[&vec![b'x'; MOST_EVENT_BYTES + 1]]),
            Err(Fault::TooLong)
        );
        assert_eq!(all(&[b"<html>\n</html>\n\n"]), Ok(Vec::new()));
        assert_eq!(all(&[]), Ok(Vec::new()));
    }
}
