//! The client's parser of answers: any bytes, in any pieces, mean the same, and a body ends where its framing says.

use crate::split;
use acms_engine::client::response::{Head, Progress, ResponseError, ResponseParser};

const BODY_LEN_MAX: u64 = 1 << 16;

/// What came of a response: head, body, where it ended.
type Parsed = Result<Option<(Head, Vec<u8>, Option<usize>)>, ResponseError>;

fn parse(bytes: &[u8], is_head: bool, ends: impl Iterator<Item = usize>) -> Parsed {
    let mut parser = ResponseParser::new(is_head, BODY_LEN_MAX);
    let (mut at, mut body) = (0, Vec::new());
    for end in ends {
        let progress = parser.push(&bytes[at..end])?;
        at = end;
        body.extend(parser.take_body());
        if let Progress::Done { unread } = progress {
            assert!(parser.is_done() && unread <= end);
            return Ok(parser.head().cloned().map(|head| (head, body, Some(end - unread))));
        }
    }
    assert!(!parser.is_done(), "a response is done when its last byte has come");
    Ok(parser.head().cloned().map(|head| (head, body, None)))
}

/// One input: how it is cut, whether it answers HEAD, the response.
pub fn check(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let Some((bytes, ends)) = split::cut(rest) else { return };
    let is_head = kind & 1 == 1;
    let whole = parse(bytes, is_head, (!bytes.is_empty()).then_some(bytes.len()).into_iter());
    let pieces = parse(bytes, is_head, ends);
    match (&whole, &pieces) {
        // What is wrong further on is not looked at once the response is done, and lengths are noticed as they come.
        (Err(ResponseError::NotHttp(_) | ResponseError::HeadTooLarge), Err(_)) => {}
        _ => assert_eq!(whole, pieces),
    }
    if let Ok(Some((head, body, end))) = whole {
        assert!(body.len() as u64 <= BODY_LEN_MAX && body.len() <= bytes.len() && (200..=999).contains(&head.status));
        assert!(!is_head || body.is_empty());
        assert!(end.is_none_or(|end| end <= bytes.len()));
    }
}
