//! What holds for any rules.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in "[a-z0-9.:,=\\[\\]/-]{0,24}") {
        let _ = text.parse::<Match>();
        let _ = text.parse::<Targets>();
        let _ = text.parse::<Clients>();
    }

    /// What is printed is read as the same.
    #[test]
    fn text_and_meaning_agree(text in "([a-z]{1,4}|10\\.0\\.0\\.[0-9]|\\[fd00::[0-9]\\])?(:[0-9]{1,4}(-[0-9]{4})?)?(=[0-9])?") {
        if let Ok(asked) = text.parse::<Match>() {
            prop_assert_eq!(asked.to_string().parse::<Match>(), Ok(asked));
        }
        if let Ok(targets) = text.parse::<Targets>() {
            prop_assert_eq!(targets.to_string().parse::<Targets>(), Ok(targets));
        }
    }

    /// Of any rules that are taken one after the other, the kernel gets a table
    /// in which every number has its rule and every slot its target, and in
    /// which no match stands behind one that is less specific in its ports.
    #[test]
    fn compiled_tables_hold_together(
        texts in prop::collection::vec(
            "(tcp/|udp/)?(web|api|four|both|10\\.99\\.0\\.1):[1-4](-4)? (:5|:1-4|api:9|api,four=3|db:6|six)( from=(four|10\\.0\\.0\\.0/2[0-9]))?",
            1..12,
        )
    ) {
        let mut set = RuleSet::default();
        for (index, text) in texts.iter().enumerate() {
            let Ok(rule) = rule(text) else { continue };
            let name = format!("r{index}").parse().unwrap();
            let kept = KeptRule { rule: Rule { name, ..rule }, ..self::kept("x", "four:1 :2") };
            let number = set.add(kept).unwrap();
            if set.check(number, &host()).is_err() {
                set.remove(number);
            }
        }
        let (compiled, warnings) = set.compile(&host());
        let wrong =
            |one: &Warning| matches!(one.concern, Concern::NowContradict { .. } | Concern::NoEffect(_));
        prop_assert!(!warnings.iter().any(wrong), "{warnings:?}");
        for (address, matches) in &compiled.matches {
            for pair in matches.windows(2) {
                let width = |one: &CompiledMatch| one.port_last - one.port_first;
                prop_assert!(width(&pair[0]) <= width(&pair[1]));
            }
            for found in matches {
                let rule = &compiled.rules[&found.rule];
                prop_assert_eq!(rule.slots.len(), SLOTS);
                let v4 = |target: &TargetId| compiled.targets[target].address.is_ipv4();
                prop_assert!(rule.slots.iter().all(|slot| v4(slot) == address.is_ipv4()));
                prop_assert_eq!(found.limited, compiled.clients.iter().any(|(id, _)| *id == found.rule));
            }
        }
    }
}
