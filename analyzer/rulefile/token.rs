//! The words, numbers and operators of a condition, with their places. Cut by winnow.

use std::ops::Range;

use winnow::{
    LocatingSlice, Parser,
    ascii::multispace0,
    combinator::{alt, preceded, repeat, terminated},
    token::{any, one_of, take_while},
};

use super::fault::Complaint;
use crate::engine::rule::Op;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word,
    Number,
    Op(Op),
    Open,
    Close,
    Plus,
    Minus,
    /// What no condition contains, kept so that it can be named.
    Foreign,
}

type Input<'t> = LocatingSlice<&'t str>;

/// Cuts a condition; what no condition contains becomes a token too.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Complaint> {
    let mut all = terminated(repeat(0.., preceded(multispace0, token)), multispace0);
    all.parse(LocatingSlice::new(text))
        .map_err(|error| Complaint::new(error.char_span(), "this cannot be read", "a condition"))
}

fn token(input: &mut Input<'_>) -> winnow::Result<Token> {
    let word_tail = ('a'..='z', 'A'..='Z', '0'..='9', '_');
    let word = (one_of(('a'..='z', 'A'..='Z', '_')), take_while(0.., word_tail));
    let number_tail = ('a'..='z', 'A'..='Z', '0'..='9', '.', '%', '/', '_', 'µ');
    let number = (one_of(('0'..='9', '.')), take_while(0.., number_tail));
    let op = alt((
        alt(("==", "!=", "=>", "=<", "<>", "&&", "||")).value(TokenKind::Foreign),
        ">=".value(TokenKind::Op(Op::AtLeast)),
        "<=".value(TokenKind::Op(Op::AtMost)),
        ">".value(TokenKind::Op(Op::Above)),
        "<".value(TokenKind::Op(Op::Below)),
        "(".value(TokenKind::Open),
        ")".value(TokenKind::Close),
        "+".value(TokenKind::Plus),
        "-".value(TokenKind::Minus),
    ));
    alt((
        word.value(TokenKind::Word),
        number.value(TokenKind::Number),
        op,
        any.value(TokenKind::Foreign),
    ))
    .with_span()
    .map(|(kind, span)| Token { kind, span })
    .parse_next(input)
}
