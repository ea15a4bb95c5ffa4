//! What errors and strings of uncertain ends give away.

use super::*;

fn told(turns: &[Turn]) -> Vec<String> {
    let mut played = Played::late(&PROTOCOL);
    played
        .turns(&[ask(query("SELECT 1")), answer([columns(), row("x"), done("SELECT 1"), ready()].concat())]);
    played.pause().turns(turns).finish(End::Fin);
    no_secret(&played.exchanges);
    let text = |one: &Exchange| format!("{} {}", shown(one), one.error.as_deref().unwrap_or_default());
    played.exchanges.iter().skip(1).map(text).collect()
}

fn fails(fields: &[u8]) -> [Turn; 2] {
    [ask(query("SELECT f()")), answer([typed(b'E', fields), ready()].concat())]
}

#[test]
fn what_a_program_made_up_is_not_told() {
    for fields in [
        &b"SERROR\0VERROR\0CP0001\0Mno user SECRET\0\0"[..],
        b"SERROR\0VERROR\0CP0004\0MSECRET\0\0",
        b"SERROR\0VERROR\0C38000\0Mplpy.Error: SECRET\0RPLy_elog_impl\0\0",
        b"SERROR\0VERROR\0C23505\0Mit is SECRET\0Fpl_exec.c\0L3911\0Rexec_stmt_raise\0\0",
        b"SERROR\0VERROR\0Mit is SECRET\0\0",
        // What is cut off may say that it is made up.
        b"SERROR\0VERROR\0C23505\0Mit is SECRET\0",
    ] {
        let told = told(&fails(fields));
        assert!(told[0].ends_with("ERROR: ?"), "{told:?}");
    }
    let told = told(&fails(b"SERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L846\0Rint4div\0\0"));
    assert!(told[0].ends_with("ERROR: division by zero"), "{told:?}");
}

#[test]
fn a_backslash_of_unknown_meaning_hides_what_depends_on_it() {
    let asked = |sql: &str| [ask(query(sql)), answer([done("SELECT 1"), ready()].concat())];
    assert!(told(&asked(r"SELECT 'it\'s', SECRET, ' FROM t"))[0].contains("| SELECT ?… |"));
    assert!(told(&asked(r"SELECT 'a\d+' FROM t"))[0].contains("| SELECT ? FROM t |"));
    let says = answer(typed(b'S', b"standard_conforming_strings\0on\0"));
    let known = [&[says], &asked(r"SELECT 'a\', b FROM t")[..]].concat();
    assert!(told(&known)[0].contains("| SELECT ?, b FROM t |"));
}
