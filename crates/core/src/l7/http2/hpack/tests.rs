use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn read(decoder: &mut Decoder, block: &[u8]) -> (Vec<(Name, String)>, Result<usize, Malformed>) {
    let mut fields = Vec::new();
    let result = decoder.block(block, &mut |field| {
        if field.name != Name::Other {
            fields.push((field.name, String::from_utf8_lossy(field.value).into_owned()));
        }
    });
    (fields, result)
}

fn fields<const N: usize>(fields: [(Name, &str); N]) -> Vec<(Name, String)> {
    fields.map(|(name, value)| (name, value.to_owned())).into()
}

/// RFC 7541, C.3 to C.6: what they say, and how big the table is after each.
#[test]
fn the_examples_of_the_standard_are_read() {
    use Name::{Authority, Method, Path, Scheme, Status};
    let request = |scheme, path| {
        fields([(Method, "GET"), (Scheme, scheme), (Path, path), (Authority, "www.example.com")])
    };
    let requests =
        [(request("http", "/"), 57), (request("http", "/"), 110), (request("https", "/index.html"), 164)];
    let answers =
        [("302", 222), ("307", 222), ("200", 215)].map(|(status, table)| (fields([(Status, status)]), table));
    let stories = [
        (
            4_096,
            &requests,
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
        ),
        (
            4_096,
            &requests,
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ),
        (
            256,
            &answers,
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
             3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
             677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
             553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ],
        ),
        (
            256,
            &answers,
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
             919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
             821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
             4ee5 b106 3d50 07",
            ],
        ),
    ];
    for (bytes_max, expected, blocks) in stories {
        let mut decoder = Decoder { bytes_max, ..Decoder::default() };
        for ((expected, table_bytes), block) in expected.iter().zip(blocks) {
            let (found, result) = read(&mut decoder, &bytes(block));
            assert_eq!((&found, decoder.bytes), (expected, *table_bytes), "{block}");
            assert!(result.is_ok());
        }
    }
}

#[test]
fn numbers_are_those_of_the_standard() {
    for (hex, bits, number) in [("0a", 5, 10), ("1f9a0a", 5, 1_337), ("7f00", 7, 127), ("0f80808000", 4, 15)]
    {
        assert_eq!(Input(&bytes(hex)).number(bits), Ok(number), "{hex}");
    }
    for hex in ["", "1f", "1f80", "1fffffffffff", "1fffffffffff7f", "1f808080808000"] {
        assert_eq!(Input(&bytes(hex)).number(5), Err(Malformed), "{hex}");
    }
}

/// As far as it was seen, the table is exact; the rest of it is said to be unseen.
#[test]
fn who_comes_late_knows_what_was_added_since() {
    let mut decoder = Decoder::late();
    let (found, result) = read(&mut decoder, &bytes("82 be 84 44 022f61 c5 04 022f62"));
    assert!(result.is_ok());
    let seen = fields([
        (Name::Method, "GET"),
        (Name::Unseen, ""),
        (Name::Path, "/"),
        (Name::Path, "/a"),
        (Name::Unseen, ""),
        (Name::Path, "/b"),
    ]);
    assert_eq!(found, seen);
    let (found, _) = read(&mut decoder, &bytes("be bf"));
    assert_eq!(found, fields([(Name::Path, "/a"), (Name::Unseen, "")]));
    // A name that was never seen, with a value that was.
    let (found, _) = read(&mut decoder, &bytes("7f01 0378797a bf be"));
    assert_eq!(found, fields([(Name::Unseen, ""), (Name::Path, "/a"), (Name::Unseen, "")]));
}

#[test]
fn who_was_there_from_the_beginning_knows_what_cannot_be() {
    for (block, why) in [
        ("80", "number 0"),
        ("be", "a number that was never given"),
        ("82 20", "the size changes after a field"),
        ("44 05 2f61", "broken off"),
        ("44 82 ffff", "not the Huffman code"),
        ("41", "nothing follows"),
    ] {
        let (_, result) = read(&mut Decoder::default(), &bytes(block));
        assert_eq!(result, Err(Malformed), "{why}");
    }
}

#[test]
fn the_table_keeps_to_its_size() {
    let mut decoder = Decoder::default();
    // Two entries of 39 bytes; only one of them fits into 40.
    read(&mut decoder, &bytes("44 022f61 44 022f62")).1.unwrap();
    assert_eq!((decoder.entries.len(), decoder.bytes), (2, 78));
    let (found, _) = read(&mut decoder, &bytes("3f09 be"));
    assert_eq!((found, decoder.entries.len()), (fields([(Name::Path, "/b")]), 1));
    // An entry that is too big empties it.
    read(&mut decoder, &bytes("44 052f62636465")).1.unwrap();
    assert_eq!((decoder.entries.len(), decoder.bytes), (0, 0));
    // More than is kept here: what falls out is unseen, not wrong.
    let (found, result) = read(&mut decoder, &bytes("3fe1ffff07 be"));
    assert_eq!((found, result), (fields([(Name::Unseen, "")]), Ok(32)));
}

#[test]
fn secrets_are_not_kept_and_references_cost_little() {
    let mut decoder = Decoder::default();
    let secret = "hunter2".repeat(500);
    let literal = [&bytes("40 06 636f6f6b6965 7f ad1a")[..], secret.as_bytes()].concat();
    read(&mut decoder, &literal).1.unwrap();
    assert!(decoder.bytes > secret.len() && decoder.memory_bytes() < 1_000);
    let bomb = vec![0xbe; 60_000];
    assert_eq!(read(&mut decoder, &bomb).1, Ok(60_000 * (32 + 6 + 3_500)));
    let mut sensitive = Vec::new();
    Decoder::default()
        .block(&bytes("14 022f61 04 022f62 44 022f63"), &mut |field| sensitive.push(field.sensitive))
        .unwrap();
    assert_eq!(sensitive, [true, false, false]);
}
