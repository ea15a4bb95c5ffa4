//! SQL.

pub(super) mod mysql;
pub(super) mod postgresql;

const SELECT: &str =
    "SELECT id, name FROM orders WHERE customer = 4711 AND state = 'open' ORDER BY id LIMIT 1000";
const UPDATE: &str =
    "UPDATE orders SET state = 'paid', total = 17.50 WHERE id = 4711 AND state = 'open' LIMIT 1";
const PREPARED: &str = "SELECT id, name FROM orders WHERE customer = ";
/// Of the second column; the first is a number of four digits.
const NAME_BYTES: u8 = 32;
