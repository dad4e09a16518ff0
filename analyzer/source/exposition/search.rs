//! Finds the lines of wanted names without looking at every byte of the others.
//!
//! A name of `n` bytes that occurs in a body covers `n - 7` places at which eight bytes in a row
//! (a gram) lie inside it. So it is enough to look at one gram in every `n - 7` places and ask a
//! small table whether any wanted name has it; one pass serves all names. Which stretch of a name
//! is asked for is chosen per body from a sample of it, so that `http_requests_total` among a
//! thousand other `http_request...` lines is not suspected at each of them. Names too short or too
//! many for that are looked up line by line.
//!
//! Both ways find exactly the lines that [`Names::claims`] describes; a test holds them together.

use std::collections::BTreeSet;

use memchr::{memchr, memmem, memrchr};

use super::grams::{GRAM, NAME_BYTES, PROBES, REGION, Site, Table, gram};

/// Which sample names are read of a body.
#[derive(Clone, Debug)]
pub struct Wanted(Option<Names>);

impl Wanted {
    /// Every name.
    pub fn all() -> Self {
        Self(None)
    }

    /// These names, as exposed: `requests_total`, `latency_bucket`.
    pub fn names<I>(names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names: BTreeSet<String> = names
            .into_iter()
            .map(|name| name.as_ref().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        Self(Some(Names::new(names.into_iter().collect())))
    }

    /// Whether samples of this name are wanted.
    pub fn contains(&self, name: &str) -> bool {
        match &self.0 {
            None => true,
            Some(names) => names.has(name.as_bytes()),
        }
    }

    pub(super) fn listed(&self) -> Option<&Names> {
        self.0.as_ref()
    }
}

/// Names above which the table would be so full that most of the body looks suspicious.
const NAMES_MAX: usize = 64;

/// Grams of a body looked at to learn which grams of a name are rare in it.
const SAMPLE_PROBES: usize = 1024;

/// Wanted names, prepared for the search.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Sorted.
    names: Vec<String>,
    /// Each name as it stands inside quotes.
    escaped: Vec<String>,
    /// Whether each can stand without quotes.
    bare: Vec<bool>,
    /// All grams of all names.
    all: Table,
    stride: Stride,
}

/// Distance of the grams looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stride {
    /// Look at every line instead.
    Lines,
    By8,
    By10,
    By13,
    By16,
    By24,
}

impl Names {
    fn new(names: Vec<String>) -> Self {
        let escaped: Vec<String> = names.iter().map(|name| escape(name)).collect();
        let shortest = escaped.iter().map(String::len).min().unwrap_or(0);
        // With the byte before it a name of 19 bytes holds 13 grams.
        let stride = match (shortest + 2).saturating_sub(GRAM) {
            _ if names.len() > NAMES_MAX => Stride::Lines,
            0..8 => Stride::Lines,
            8..10 => Stride::By8,
            10..13 => Stride::By10,
            13..16 => Stride::By13,
            16..24 => Stride::By16,
            24.. => Stride::By24,
        };
        let mut grams = Vec::new();
        if stride != Stride::Lines {
            for (name, text) in (0..).zip(&escaped) {
                let reach = text.len().min(NAME_BYTES);
                for (offset, window) in (0..).zip(text.as_bytes()[..reach].windows(GRAM)) {
                    grams.push((gram(window), Site::new(name, text.as_bytes(), offset + 1)));
                }
            }
        }
        let bare = names.iter().map(|name| name.bytes().all(is_name)).collect();
        Self { names, escaped, bare, all: Table::new(grams), stride }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok()
    }

    /// Calls `line` with the bounds of every line that may hold a wanted sample, in order.
    pub fn lines<E>(
        &self,
        body: &[u8],
        mut line: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let from = match self.stride {
            Stride::Lines => 0,
            Stride::By8 => self.strides::<8, E>(body, &mut line)?,
            Stride::By10 => self.strides::<10, E>(body, &mut line)?,
            Stride::By13 => self.strides::<13, E>(body, &mut line)?,
            Stride::By16 => self.strides::<16, E>(body, &mut line)?,
            Stride::By24 => self.strides::<24, E>(body, &mut line)?,
        };
        self.each_line(body, from, line)
    }

    /// Whether a line may hold a wanted sample: its first word is a wanted name, or it begins with
    /// a brace and has a wanted name in quotes somewhere.
    fn claims(&self, line: &[u8]) -> bool {
        let text = trim_blanks(line);
        match text.first() {
            None | Some(b'#') => false,
            Some(b'{') => self.escaped.iter().any(|name| {
                memmem::find_iter(text, name.as_bytes()).any(|at| {
                    text[..at].ends_with(b"\"") && text[at + name.len()..].starts_with(b"\"")
                })
            }),
            Some(_) => {
                let end = text.iter().position(|byte| !is_name(*byte)).unwrap_or(text.len());
                end > 0 && self.has(&text[..end])
            }
        }
    }

    fn each_line<E>(
        &self,
        body: &[u8],
        from: usize,
        mut line: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = from;
        while start < body.len() {
            let end = line_end(body, start);
            if self.claims(&body[start..end]) {
                line(start, end)?;
            }
            start = end + 1;
        }
        Ok(())
    }

    /// Reads by grams as far as whole blocks reach; returns the start of the first line that is
    /// left to [`Names::each_line`].
    fn strides<const S: usize, E>(
        &self,
        body: &[u8],
        line: &mut impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<usize, E> {
        // The first line has no byte before it, so its name may lack the gram that begins there.
        let end = line_end(body, 0);
        if self.claims(&body[..end]) {
            line(0, end)?;
        }
        let table = self.table::<S>(body);
        let mut cursor = Cursor { body, line_start: end + 1, braced: None };
        let mut hits = [0; REGION * PROBES];
        for (index, region) in body.chunks(REGION * PROBES * S).enumerate() {
            for hit in table.hits::<S>(region, &mut hits) {
                let place = (index * REGION * PROBES + usize::from(*hit)) * S;
                for site in table.sites_of(gram(&body[place..place + GRAM])) {
                    let Some(from) = site.fits(body, place) else { continue };
                    let name = usize::from(site.name);
                    if let Some((start, end)) = self.line_of_text(&mut cursor, from, name) {
                        line(start, end)?;
                        cursor = Cursor { body, line_start: end + 1, braced: None };
                    }
                }
            }
        }
        let rest = body.len() / (PROBES * S) * (PROBES * S);
        let rest_line = memrchr(b'\n', &body[..rest]).map_or(0, |newline| newline + 1);
        Ok(rest_line.max(cursor.line_start))
    }

    /// The line, not before the cursor, on which a name's text begins at `from`, if it does.
    #[cold]
    fn line_of_text(
        &self,
        cursor: &mut Cursor<'_>,
        from: usize,
        name: usize,
    ) -> Option<(usize, usize)> {
        let fits = from >= cursor.line_start
            && cursor.body[from..].starts_with(self.escaped[name].as_bytes());
        fits.then(|| self.line_at(cursor, from, name)).flatten()
    }

    /// The line on which a name's text stands at `from`, if the line is claimed for that.
    fn line_at(&self, cursor: &mut Cursor<'_>, from: usize, name: usize) -> Option<(usize, usize)> {
        let body = cursor.body;
        let next = body.get(from + self.escaped[name].len()).copied();
        let start = match from.checked_sub(1).map(|before| body[before]) {
            None | Some(b'\n') => from,
            Some(b' ' | b'\t') => {
                let blanks = body[..from].iter().rev();
                let start = from - blanks.take_while(|byte| is_blank(**byte)).count();
                if start > 0 && body[start - 1] != b'\n' {
                    return None;
                }
                start
            }
            Some(b'"') if next == Some(b'"') => {
                let (start, braced) = cursor.line_of(from);
                return braced.then(|| (start, line_end(body, from)));
            }
            Some(_) => return None,
        };
        let bare = !next.is_some_and(is_name) && self.bare[name];
        bare.then(|| (start, line_end(body, from)))
    }

    /// The table for one body: of each name the stretch of `S` grams in a row that is rarest in it.
    fn table<const S: usize>(&self, body: &[u8]) -> Table {
        let met = self.sample(body);
        let mut grams = Vec::with_capacity(self.escaped.len() * (S + LEADS.len()));
        for ((name, text), met) in (0..).zip(&self.escaped).zip(&met) {
            let text = text.as_bytes();
            let count = text.len().min(NAME_BYTES) - GRAM + 1;
            if count < S {
                // One gram short: the byte before the name, whatever it may be, gives the last.
                for before in LEADS {
                    let mut lead = [before; GRAM];
                    lead[1..].copy_from_slice(&text[..GRAM - 1]);
                    grams.push((gram(&lead), Site::new(name, text, 0)));
                }
            }
            let cost = |from: usize| met[from..from + S.min(count)].iter().sum::<u16>();
            let from = (0..=count.saturating_sub(S)).min_by_key(|from| cost(*from)).unwrap_or(0);
            for (offset, window) in (0..).zip(text[from..].windows(GRAM).take(S.min(count))) {
                let offset_plus_1 = from as u16 + offset + 1;
                grams.push((gram(window), Site::new(name, text, offset_plus_1)));
            }
        }
        Table::new(grams)
    }

    /// How often each gram of each name was met among grams spread evenly over the body.
    fn sample(&self, body: &[u8]) -> Vec<[u16; NAME_BYTES]> {
        let mut met = vec![[0; NAME_BYTES]; self.escaped.len()];
        let step = body.len().saturating_sub(GRAM) / SAMPLE_PROBES;
        if step > 0 {
            for probe in 0..SAMPLE_PROBES {
                let found = gram(&body[probe * step..probe * step + GRAM]);
                for site in self.all.sites_of(found) {
                    met[usize::from(site.name)][usize::from(site.offset_plus_1) - 1] += 1;
                }
            }
        }
        met
    }
}

/// Bytes that may stand before a name that begins a line or a quoted string.
const LEADS: [u8; 4] = *b"\n \t\"";

/// Walks lines forward only, so that a body made of one line costs no more than any other.
struct Cursor<'a> {
    body: &'a [u8],
    line_start: usize,
    /// Up to where that line is known to reach, and whether it begins with a brace, once asked.
    braced: Option<(usize, bool)>,
}

impl Cursor<'_> {
    /// Start of the line that `at` stands on, and whether a brace is the first thing on it.
    fn line_of(&mut self, at: usize) -> (usize, bool) {
        let known = self.braced.map_or(self.line_start, |(reach, _)| reach);
        if known < at
            && let Some(newline) = memrchr(b'\n', &self.body[known..at])
        {
            self.line_start = known + newline + 1;
            self.braced = None;
        }
        let braced = match self.braced {
            Some((_, braced)) => braced,
            None => trim_blanks(&self.body[self.line_start..at]).first() == Some(&b'{'),
        };
        self.braced = Some((at.max(known), braced));
        (self.line_start, braced)
    }
}

fn line_end(body: &[u8], from: usize) -> usize {
    memchr(b'\n', &body[from..]).map_or(body.len(), |newline| from + newline)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')
}

fn trim_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// The name as it stands inside quotes.
fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

    use super::*;

    fn found(wanted: &Wanted, body: &str) -> (Vec<String>, Vec<String>) {
        let names = wanted.listed().expect("names");
        let mut fast = Vec::new();
        let mut slow = Vec::new();
        let Ok(()) = names.lines::<std::convert::Infallible>(body.as_bytes(), |start, end| {
            fast.push(body[start..end].to_owned());
            Ok(())
        });
        for line in body.split('\n').filter(|line| names.claims(line.as_bytes())) {
            slow.push(line.to_owned());
        }
        (fast, slow)
    }

    #[test]
    fn the_search_finds_the_lines_that_are_claimed() {
        const SEED: u64 = 5;
        let mut random = StdRng::seed_from_u64(SEED);
        let long = "a_very_long_name_".repeat(6);
        let sets: [&[&str]; 8] = [
            &[&long, "a_very_long_name_that_differs"],
            &["http_requests_total", "http_request_duration_seconds_bucket"],
            &["up"],
            &["fourteen_chars", "process_start_time_seconds"],
            &["sixteen_chars_ab"],
            &["my.dotted.metric.name", "http_requests_total"],
            &["odd \"quoted\" \\ name of some length"],
            &["aaaaaaaaaaaaaaaaaaaaaaaaaa"],
        ];
        let junk = [
            "\n",
            "\n",
            "\n",
            " ",
            "\t",
            "{",
            "\"",
            "#",
            "# HELP ",
            "_x",
            "\r\n",
            "}",
            " 1",
            "a",
            "other_metric_with_a_name{a=\"b\"} 1\n",
            "aaaaaaa",
            "http_requ",
            "\n{\"",
        ];
        let mut lines = 0;
        for round in 0..3000 {
            let set = sets[round % sets.len()];
            let wanted = Wanted::names(set);
            let names = wanted.listed().expect("names");
            let mut body = String::new();
            for _ in 0..random.random_range(0..400) {
                if random.random_ratio(1, 8) {
                    body.push_str(names.escaped.choose(&mut random).expect("a name"));
                } else {
                    body.push_str(junk.choose(&mut random).expect("junk"));
                }
            }
            let (fast, slow) = found(&wanted, &body);
            lines += slow.len();
            assert_eq!(fast, slow, "seed {SEED}, round {round}, {set:?} in {body:?}");
        }
        assert!(lines > 10_000, "the bodies held only {lines} wanted lines");
    }

    #[test]
    fn more_names_than_the_table_takes_are_read_line_by_line() {
        let many = |count: usize| {
            Wanted::names((0..count).map(|number| format!("a_name_of_some_length_{number}")))
        };
        let strides = |wanted: &Wanted| wanted.listed().map(|names| names.stride);
        assert_ne!(strides(&many(NAMES_MAX)), Some(Stride::Lines));
        assert_eq!(strides(&many(NAMES_MAX + 1)), Some(Stride::Lines));
        let body = "a_name_of_some_length_7 1\na_name_of_no_interest 2\n".repeat(50);
        assert_eq!(found(&many(NAMES_MAX + 1), &body).0.len(), 50);
        assert_eq!(found(&many(NAMES_MAX), &body).0.len(), 50);
    }
}
