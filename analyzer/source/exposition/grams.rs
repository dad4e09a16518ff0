//! Eight bytes in a row, and the table that tells which of them wanted names have.
//!
//! The table answers by a hash: it may suspect a gram that no name has, never overlook one. What a
//! suspicion is worth is for the search to find out.

/// Bytes of a gram.
pub(super) const GRAM: usize = 8;

/// Grams looked at together before asking whether any of them is known.
pub(super) const PROBES: usize = 8;

/// Blocks of probes gone through before those with a known gram are looked into.
pub(super) const REGION: usize = 32;

/// Places of the table; a power of two that leaves the first cache level room for the body.
pub(super) const PLACES: usize = 16384;

/// How far into a name grams are considered; keeps offsets small and the table sparse.
pub(super) const NAME_BYTES: usize = 64;

/// A place in a name, with the name's first and last gram: a test that needs no other memory and
/// that siblings of the name do not pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub name: u16,
    /// Offset of the gram in the name, plus one; zero for one that begins on the byte before it.
    pub offset_plus_1: u16,
    /// Offset of the last gram.
    last_offset: u16,
    first: u64,
    last: u64,
}

impl Site {
    pub fn new(name: u16, text: &[u8], offset_plus_1: u16) -> Self {
        // What lies behind the first stretch of a very long name is compared later.
        let last = text.len().min(NAME_BYTES) - GRAM;
        Self {
            name,
            offset_plus_1,
            last_offset: last as u16,
            first: gram(text),
            last: gram(&text[last..]),
        }
    }

    /// Where the name would begin if its gram is at `place`, if its ends are there.
    #[inline(always)]
    pub fn fits(&self, body: &[u8], place: usize) -> Option<usize> {
        let from = (place + 1).checked_sub(usize::from(self.offset_plus_1))?;
        let first = body.get(from..from + GRAM)?;
        let last = from + usize::from(self.last_offset);
        let last = body.get(last..last + GRAM)?;
        ((gram(first) ^ self.first) | (gram(last) ^ self.last) == 0).then_some(from)
    }
}

/// Which grams are asked for, by a hash of them, and what each would be part of.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Whether a place has sites: a table of its own, small enough to stay in the nearest cache.
    known: Box<[u8; PLACES]>,
    /// Where the sites of a known place begin.
    first: Box<[u16; PLACES]>,
    /// Each with its place, sorted by it.
    sites: Vec<(u16, Site)>,
}

impl Table {
    pub fn new(grams: Vec<(u64, Site)>) -> Self {
        let mut sites: Vec<(u16, Site)> =
            grams.into_iter().map(|(gram, site)| (place(gram) as u16, site)).collect();
        sites.sort_unstable_by_key(|(place, _)| *place);
        let (mut known, mut first) = (Box::new([0; PLACES]), Box::new([0; PLACES]));
        for (index, (place, _)) in sites.iter().enumerate().rev() {
            known[usize::from(*place)] = 1;
            first[usize::from(*place)] = index as u16;
        }
        Self { known, first, sites }
    }

    /// Where a gram, or another of the same hash, stands in wanted names.
    #[inline]
    pub fn sites_of(&self, gram: u64) -> impl Iterator<Item = &Site> {
        let place = place(gram);
        let none = self.sites.len();
        let from = if self.known[place] == 0 { none } else { usize::from(self.first[place]) };
        let sites = self.sites[from..].iter();
        sites.take_while(move |(other, _)| usize::from(*other) == place).map(|(_, site)| site)
    }

    /// The probes of a region that meet a known gram, by number. The region is gone through without
    /// a branch on what is found, since a wrong guess costs more than ten probes.
    pub fn hits<'h, const S: usize>(
        &self,
        region: &[u8],
        hits: &'h mut [u16; REGION * PROBES],
    ) -> &'h [u16] {
        let (mut suspects, mut blocks) = ([0u8; REGION], 0);
        for (index, block) in (0..).zip(region.chunks_exact(PROBES * S)) {
            let mut met = 0;
            for probe in 0..PROBES {
                met |= self.known[place(gram(&block[probe * S..probe * S + GRAM]))];
            }
            suspects[blocks % REGION] = index;
            blocks += usize::from(met);
        }
        let mut count = 0;
        for suspect in &suspects[..blocks] {
            let at = usize::from(*suspect) * PROBES * S;
            let block = &region[at..at + PROBES * S];
            for probe in 0..PROBES {
                let known = self.known[place(gram(&block[probe * S..probe * S + GRAM]))];
                hits[count % (REGION * PROBES)] =
                    u16::from(*suspect) * PROBES as u16 + probe as u16;
                count += usize::from(known);
            }
        }
        &hits[..count]
    }
}

#[inline(always)]
pub(super) fn gram(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<GRAM>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
pub(super) fn place(gram: u64) -> usize {
    (gram.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PLACES.ilog2())) as usize
}
