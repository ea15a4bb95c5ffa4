//! Rules as texts outlive their writer.

use weir_kernel::{RuleTexts, TextsError};
use weir_testkit::require_root;

use crate::host::{Host, methods};

#[test]
fn root_texts_are_there_for_the_next_owner() {
    require_root!();
    let host = Host::new();
    assert!(RuleTexts::pinned(&host.pins()).unwrap().is_none(), "there is no state");
    let longest = "x".repeat(RuleTexts::TEXT_BYTES_MAX);
    {
        let owner = host.own(methods()[0]);
        let texts = owner.datapath.rule_texts().unwrap();
        for (number, text) in [(1, "first"), (2, "gone"), (u32::MAX, longest.as_str()), (1, "web ⇒ api")] {
            texts.write(number, text).unwrap();
        }
        texts.remove(2).unwrap();
        texts.remove(3).unwrap();
        let too_long = texts.write(4, &format!("{longest}x")).unwrap_err();
        assert!(matches!(too_long, TextsError::TooLong { bytes: 4096 }), "{too_long}");
    }
    let texts = RuleTexts::pinned(&host.pins()).unwrap().unwrap();
    assert_eq!(texts.read().unwrap(), [(1, "web ⇒ api".to_owned()), (u32::MAX, longest)].into());
    assert!(matches!(texts.write(5, ""), Err(TextsError::NotPermitted { .. })), "they are there to be read");
    drop(texts);
    let owner = host.own(methods()[0]);
    let texts = owner.datapath.rule_texts().unwrap();
    for number in 10..10 + RuleTexts::RULES_MAX as u32 - 2 {
        texts.write(number, "").unwrap();
    }
    assert!(matches!(texts.write(5, ""), Err(TextsError::Full)));
}
