//! The pieces of a request that lines and tables show.

use anstyle::Style;
use weir_core::record::{Capture, Matched, RequestRecord};
use weir_core::text;

use super::cell::{BAD, BOLD, Cell, DIM, GOOD, WARN};

/// Longer targets are cut, with a mark: JSON has them whole.
const TARGET_CHARACTERS_MAX: usize = 160;

/// `GET /orders/17`; a statement that begins with its operation says it once.
pub(super) fn asked(cell: Cell, request: &RequestRecord) -> Cell {
    let operation = if request.operation.is_empty() { "?" } else { &request.operation };
    let Some(target) = &request.target else { return cell.styled(BOLD, operation) };
    let shown = match target.char_indices().nth(TARGET_CHARACTERS_MAX) {
        Some((end, _)) => target.get(..end).unwrap_or(target),
        None => target,
    };
    let cell = match shown.split_at_checked(operation.len()) {
        Some((verb, rest)) if verb.eq_ignore_ascii_case(operation) && rest.starts_with(' ') => {
            cell.styled(BOLD, verb).plain(rest)
        }
        _ => cell.styled(BOLD, operation).plain(" ").plain(shown),
    };
    if shown.len() < target.len() { cell.styled(DIM, "…") } else { cell }
}

/// As the protocol says it; or that there is no answer.
pub(super) fn status(cell: Cell, request: &RequestRecord) -> Cell {
    if request.matched == Matched::NoResponse {
        return cell.styled(DIM, "no answer");
    }
    let style = match request.ok {
        Some(true) => GOOD,
        Some(false) => BAD,
        None => Style::new(),
    };
    cell.styled(style, request.status.as_deref().unwrap_or("-"))
}

/// What went wrong, and what is not sure; each only if so.
pub(super) fn notes(cell: Cell, request: &RequestRecord) -> Cell {
    let mut cell = cell;
    if let Some(error) = &request.error {
        cell = cell.part(BAD, error);
    }
    if request.matched == Matched::NoRequest {
        cell = cell.part(WARN, "request not seen");
    }
    if !request.revealed.is_empty() {
        cell = cell.part(WARN, &format!("shows {}", request.revealed.join(", ")));
    }
    match request.capture {
        Capture::Complete => cell,
        Capture::Midstream => cell.part(DIM, Capture::Midstream.name()),
        capture => cell.part(WARN, capture.name()),
    }
}

/// `412 B / 1.2 kB`: asked and answered.
pub(super) fn sizes(request: &RequestRecord) -> String {
    format!("{} / {}", text::bytes(request.request_bytes), text::bytes(request.response_bytes))
}
