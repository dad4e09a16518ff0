//! Plots as SVG text: curves, spreads and stacked shares.
//!
//! Drawn 520 units wide with letters of 14, so that they can be read on a narrow screen, where they
//! shrink by a third. Colours come from the page's style by class.

use std::fmt::Write;

use super::{page::escape, scale::Scale};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;

/// Height of a row of a plot that has rows: a line of text and what it is about.
const ROW: f64 = 42.0;

/// Kinds of lines and fills that the page's style knows.
pub const KINDS: usize = 5;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Which kind of line, below [`KINDS`].
    pub kind: usize,
    /// Values along both axes, in order.
    pub points: Vec<[f64; 2]>,
    /// Whether each point is marked.
    pub dots: bool,
}

/// Lines that mean something, each with its words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks<'a> {
    /// A line across at this height.
    pub across: Option<(f64, &'a str)>,
    /// A line from top to bottom at this place.
    pub down: Option<(f64, &'a str)>,
}

/// Curves over two axes, with marks.
pub fn curves(text: &str, x: &Scale, y: &Scale, curves: &[Curve], marks: Marks<'_>) -> String {
    let mut svg = begin(text, HEIGHT);
    axes(&mut svg, x, y);
    let place = |[a, b]: [f64; 2]| (across(x, a), down(y, b));
    for curve in curves {
        let kind = curve.kind % KINDS;
        let mut path = String::new();
        for (number, point) in curve.points.iter().enumerate() {
            let (a, b) = place(*point);
            let _ = write!(path, "{}{a:.1} {b:.1}", if number == 0 { "M" } else { "L" });
        }
        let class = if curve.dots { "line" } else { "line thin" };
        let _ = write!(svg, r#"<path class="{class} k{kind}" d="{path}"/>"#);
        for point in curve.points.iter().filter(|_| curve.dots) {
            let (a, b) = place(*point);
            let _ = write!(svg, r#"<circle class="dot k{kind}" cx="{a:.1}" cy="{b:.1}" r="4"/>"#);
        }
    }
    if let Some((value, meaning)) = marks.down {
        let at = across(x, value);
        let (side, gap) = if x.place(value) > 0.6 { ("end", -6.0) } else { ("start", 6.0) };
        let _ = write!(
            svg,
            r#"<path class="limit" d="M{at:.1} {TOP}V{}"/><text class="limit-text" x="{:.1}" y="{:.1}" text-anchor="{side}">{}</text>"#,
            HEIGHT - BOTTOM,
            at + gap,
            TOP + 0.3 * (HEIGHT - TOP - BOTTOM),
            escape(meaning)
        );
    }
    if let Some((value, meaning)) = marks.across {
        let at = down(y, value);
        let _ = write!(
            svg,
            r#"<path class="limit" d="M{LEFT} {at:.1}H{}"/><text class="limit-text" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            at - 6.0,
            escape(meaning)
        );
    }
    svg + "</svg>"
}

/// How far values spread.
#[derive(Clone, Debug)]
pub struct Spread {
    /// What they are of.
    pub name: String,
    /// What is written at the right.
    pub note: String,
    /// 5, 25, 50, 75 and 95 of 100 are below; none where there is nothing to draw.
    pub at: Option<[f64; 5]>,
}

/// One row a spread: a thin line from 5 to 95 of 100, a bar over the middle half, a mark at half.
pub fn spreads(text: &str, x: &Scale, rows: &[Spread]) -> String {
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let mut svg = begin(text, height);
    let bottom = height - BOTTOM;
    let wide = |value: f64| 8.0 + x.place(value) * (WIDTH - 32.0);
    for (value, mark) in &x.marks {
        let at = wide(*value);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{at:.1} {TOP}V{bottom:.1}"/><text class="mark" x="{at:.1}" y="{:.1}" text-anchor="{}">{}</text>"#,
            bottom + 18.0,
            anchor(x.place(*value)),
            escape(mark)
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        row_text(&mut svg, top, &row.name, &row.note);
        let Some([p5, p25, p50, p75, p95]) = row.at.map(|at| at.map(wide)) else { continue };
        let middle = top + 30.0;
        let _ = write!(
            svg,
            r#"<path class="whisker" d="M{p5:.1} {middle:.1}H{p95:.1}"/><rect class="box" x="{p25:.1}" y="{:.1}" width="{:.1}" height="10" rx="3"/><path class="median" d="M{p50:.1} {:.1}v16"/>"#,
            middle - 5.0,
            (p75 - p25).max(2.0),
            middle - 8.0
        );
    }
    title_below(&mut svg, &x.title, height);
    svg + "</svg>"
}

/// A whole and its parts.
#[derive(Clone, Debug)]
pub struct Shares {
    /// What it is.
    pub name: String,
    /// What is written at the right.
    pub note: String,
    /// Shares of the parts, each filled by its kind; together at most 1.
    pub parts: Vec<(usize, f64)>,
}

/// One bar a whole, divided into its parts.
pub fn shares(text: &str, rows: &[Shares]) -> String {
    let height = TOP + ROW * rows.len() as f64 + 4.0;
    let mut svg = begin(text, height);
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        row_text(&mut svg, top, &row.name, &row.note);
        let whole = WIDTH - 16.0;
        let y = top + 21.0;
        let _ =
            write!(svg, r#"<rect class="track" x="8" y="{y:.1}" width="{whole}" height="12"/>"#);
        let mut from = 8.0;
        for (kind, share) in &row.parts {
            let wide = whole * share.clamp(0.0, 1.0);
            if wide > 0.0 {
                let kind = kind % KINDS;
                let _ = write!(
                    svg,
                    r#"<rect class="fill f{kind}" x="{from:.1}" y="{y:.1}" width="{:.1}" height="12"/>"#,
                    wide.max(1.5)
                );
            }
            from += wide;
        }
    }
    svg + "</svg>"
}

fn begin(text: &str, height: f64) -> String {
    let text = escape(text);
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{text}"><title>{text}</title>"#
    )
}

fn across(x: &Scale, value: f64) -> f64 {
    LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)
}

fn down(y: &Scale, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)
}

fn axes(svg: &mut String, x: &Scale, y: &Scale) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, mark) in &y.marks {
        let at = down(y, *value);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="mark" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 5.0,
            escape(mark)
        );
    }
    for (value, mark) in &x.marks {
        let at = across(x, *value);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{at:.1} {TOP}V{bottom}"/><text class="mark" x="{at:.1}" y="{:.1}" text-anchor="{}">{}</text>"#,
            bottom + 20.0,
            if x.place(*value) > 0.97 { "end" } else { "middle" },
            escape(mark)
        );
    }
    title_below(svg, &x.title, HEIGHT);
}

fn title_below(svg: &mut String, title: &str, height: f64) {
    let _ = write!(
        svg,
        r#"<text class="axis" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
        WIDTH - RIGHT,
        height - 9.0,
        escape(title)
    );
}

/// Letters of a row's name and note together: more would run into each other.
const ROW_LETTERS_MAX: usize = 52;

fn row_text(svg: &mut String, top: f64, name: &str, note: &str) {
    let room = ROW_LETTERS_MAX.saturating_sub(note.chars().count()).max(8);
    let mut shown: String = name.chars().take(room).collect();
    if name.chars().nth(room).is_some() {
        shown.pop();
        shown.push('…');
    }
    let _ = write!(
        svg,
        r#"<text class="name" x="8" y="{:.1}">{}</text><text class="mark" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
        top + 15.0,
        escape(&shown),
        WIDTH - 8.0,
        top + 15.0,
        escape(note)
    );
}

fn anchor(place: f64) -> &'static str {
    match place {
        place if place < 0.03 => "start",
        place if place > 0.97 => "end",
        _ => "middle",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::scale::{log_time, percent},
        *,
    };

    #[test]
    fn plots_escape_and_stay_within_their_frame() {
        let x = log_time("time", 1.0, 100.0);
        let wild =
            Curve { kind: 99, points: vec![[0.0, -5.0], [f64::NAN, 0.5], [1e12, 7.0]], dots: true };
        let limit = Some((1.0, "<needed> & \"so\""));
        let marks = Marks { across: limit, down: limit };
        let drawn = [
            curves("a < b", &x, &percent("share"), &[wild], marks),
            spreads(
                "s",
                &x,
                &[
                    Spread { name: "<n>".into(), note: "-".into(), at: None },
                    Spread {
                        name: "m".into(),
                        note: "&".into(),
                        at: Some([0.0, 1.0, 2.0, 1e9, 1e9]),
                    },
                ],
            ),
            shares(
                "b",
                &[Shares {
                    name: "n".into(),
                    note: String::new(),
                    parts: vec![(0, 7.0), (1, -1.0)],
                }],
            ),
        ];
        for svg in drawn {
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(!svg.contains("<needed>") && !svg.contains("<n>"), "{svg}");
            let numbers = svg.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
            for number in numbers.filter_map(|number| number.parse::<f64>().ok()) {
                assert!((-1.0..=WIDTH).contains(&number) || number == 99.0, "{number} in {svg}");
            }
        }
    }
}
