//! What a redirected flow's client sees of it.

use crate::flow::{FlowKey, Side};
use crate::redirect::RuleId;

/// The other name of a flow that was redirected. Its row is kept under the name
/// that the server sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The rule that redirected it. `None`: it got another port only, because the
    /// server would have taken it for a redirected one.
    pub rule: Option<RuleId>,
    /// The flow as its client sees it.
    pub asked: FlowKey,
    /// Which end of `asked` is the client.
    pub client: Side,
}
