//! Connections that are joined late, or whose first requests are missing, of
//! clients that ask ahead.

use super::{Direction, Played, Random, Turn, no_false_pair, pairs, play};
use crate::l7::{End, Exchange, Gap, Protocol};
use crate::record::Capture;

const EXCHANGES: usize = 60;

/// Checks that no wrong pair is told as a certain one, whatever is under way when
/// the connection is seen first; and that one of a client that waits is paired
/// soon. After the `opening`, which is seen or not, `exchange` makes requests with
/// their answers, each other than all others.
pub(in crate::l7) fn check_asking_ahead(
    protocol: &'static Protocol,
    opening: &[Turn],
    exchange: impl Fn(usize) -> (Vec<u8>, Vec<u8>),
) {
    let exchanges: Vec<_> = (0..EXCHANGES).map(exchange).collect();
    let turns = exchanges.iter().flat_map(|(asked, answered)| [super::ask(asked), super::answer(answered)]);
    let expected = pairs(&play(protocol, &opening.iter().cloned().chain(turns).collect::<Vec<_>>()));
    assert!(expected.len() >= EXCHANGES);
    let mut random = Random(19);
    for round in 0..400 {
        let depth = 1 + round % 6;
        // How readily it asks ahead: always, so that two ends take turns forever, or by chance.
        let readily = [1, 2, 8, 100][round / 6 % 4];
        let first = 1 + random.below(EXCHANGES);
        for late in [false, true] {
            let mut played = if late { Played::late(protocol) } else { Played::new(protocol) };
            if !late {
                played.turns(opening);
            }
            let (mut asked, mut answered, mut missing) = (0, 0, 0);
            while answered < EXCHANGES {
                let under_way = asked - answered;
                let may_ask = asked < EXCHANGES && under_way < depth;
                let asks = may_ask && (under_way == 0 || random.below(readily + 1) > 0);
                if under_way == 0 && random.below(20) == 0 {
                    played.pause();
                }
                played.at(played.time_ns + 1_000 * (1 + random.below(1_000) as u64));
                let is_seen = asked + answered >= first;
                let (direction, bytes) = match asks {
                    true => (Direction::ToServer, &exchanges[asked].0),
                    false => (Direction::ToClient, &exchanges[answered].1),
                };
                if is_seen {
                    let lost = std::mem::take(&mut missing);
                    if lost > 0 && !late {
                        played.gap(Direction::ToServer, lost, Gap::Lost);
                        played.gap(Direction::ToClient, lost, Gap::Lost);
                    }
                    played.data(direction, bytes);
                } else {
                    missing += bytes.len() as u64;
                }
                asked += usize::from(asks);
                answered += usize::from(!asks);
            }
            played.finish(End::Fin);
            let what = format!("{depth} at a time, {readily}, seen from {first} on, late: {late}");
            let certain: Vec<Exchange> =
                played.exchanges.iter().filter(|one| one.capture == Capture::Complete).cloned().collect();
            no_false_pair(&certain, &expected, &what);
            if depth == 1 {
                let seen = EXCHANGES - first.div_ceil(2);
                assert!(pairs(&played.exchanges).len() + 18 >= seen, "{what}: {:?}", played.exchanges);
                no_false_pair(&played.exchanges, &expected, &what);
            }
        }
    }
}
