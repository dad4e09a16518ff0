//! A page that stands by itself: style inside, no script, nothing fetched. Light and dark by the
//! reader's wish, one column on a narrow screen, black on white on paper.

use std::fmt::Write;

/// Text that may stand anywhere in HTML or SVG, attributes included.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter if letter.is_control() && letter != '\n' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A page as it grows. Words are escaped, drawings are taken as they are.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with its heading and, below it in small letters, what it is about.
    pub fn new(title: &str, about: &[String]) -> Self {
        let mut body = format!("<header><h1>{}</h1>", escape(title));
        for line in about {
            let _ = write!(body, "<p class=\"about\">{}</p>", escape(line));
        }
        body += "</header>";
        Self { title: escape(title), body }
    }

    /// Begins a part of the page.
    pub fn heading(&mut self, text: &str) {
        let _ = write!(self.body, "<h2>{}</h2>", escape(text));
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        let _ = write!(self.body, "<p>{}</p>", escape(text));
    }

    /// Figures that stand out: a number each, what it is, and whether it is as it should be.
    pub fn figures(&mut self, figures: &[Figure]) {
        self.body += "<div class=\"figures\">";
        for Figure { number, what, mood } in figures {
            let _ = write!(
                self.body,
                "<div class=\"figure {}\"><b>{}</b><span>{}</span></div>",
                mood.class(),
                escape(number),
                escape(what)
            );
        }
        self.body += "</div>";
    }

    /// Plots side by side where there is room.
    pub fn plots(&mut self, plots: &[Plot]) {
        self.body += "<div class=\"plots\">";
        for Plot { title, svg, legend, caption } in plots {
            let _ = write!(self.body, "<figure><h3>{}</h3>{svg}", escape(title));
            if !legend.is_empty() {
                self.body += "<ul class=\"legend\">";
                for (key, name) in legend {
                    let _ = write!(self.body, "<li>{}{}</li>", key.drawn(), escape(name));
                }
                self.body += "</ul>";
            }
            let _ = write!(self.body, "<figcaption>{}</figcaption></figure>", escape(caption));
        }
        self.body += "</div>";
    }

    /// A table; the first column is left, the others right, and the last left again if asked.
    pub fn table(&mut self, columns: &[&str], rows: &[Vec<String>], is_last_text: bool) {
        let class = if is_last_text { " class=\"texts\"" } else { "" };
        let _ = write!(self.body, "<div class=\"scroll\" tabindex=\"0\"><table{class}><thead><tr>");
        for column in columns {
            let _ = write!(self.body, "<th scope=\"col\">{}</th>", escape(column));
        }
        self.body += "</tr></thead><tbody>";
        for row in rows {
            self.body += "<tr>";
            for (place, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = match place {
                    0 => write!(self.body, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(self.body, "<td>{cell}</td>"),
                };
            }
            self.body += "</tr>";
        }
        self.body += "</tbody></table></div>";
    }

    /// The whole page as HTML.
    pub fn finish(self) -> String {
        let Self { title, body } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
             <style>{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
        )
    }
}

/// A number that stands out.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The number, with its unit.
    pub number: String,
    /// What it is, in a short sentence.
    pub what: String,
    /// Whether it is as it should be.
    pub mood: Mood,
}

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// Wants an eye.
    Warn,
    /// As it should not be.
    Bad,
    /// Neither.
    Plain,
}

impl Mood {
    fn class(self) -> &'static str {
        match self {
            Mood::Good => "good",
            Mood::Warn => "warn",
            Mood::Bad => "bad",
            Mood::Plain => "plain",
        }
    }
}

/// A plot with its words.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows, in a few words.
    pub title: String,
    /// The drawing.
    pub svg: String,
    /// What its lines or fills are.
    pub legend: Vec<(Key, String)>,
    /// How to read it, in a sentence or two.
    pub caption: String,
}

/// What stands before a name in a legend.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// A line of this kind.
    Line(usize),
    /// A fill of this kind.
    Fill(usize),
}

impl Key {
    fn drawn(self) -> String {
        match self {
            Key::Line(kind) => format!(
                "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\">\
                 <path class=\"line k{kind}\" d=\"M1 5H29\"/></svg>"
            ),
            Key::Fill(kind) => format!(
                "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\">\
                 <rect class=\"fill f{kind}\" width=\"30\" height=\"10\"/></svg>"
            ),
        }
    }
}

/// The style of every page; its tones are those of the live page.
const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_become_markup_and_nothing_is_fetched() {
        let evil = "<script src=\"http://x\">'&\u{1}";
        let mut page = Page::new(evil, &[evil.to_owned()]);
        page.heading(evil);
        page.text(evil);
        let figure = Figure { number: evil.into(), what: evil.into(), mood: Mood::Bad };
        page.figures(&[figure]);
        page.plots(&[Plot {
            title: evil.into(),
            svg: "<svg></svg>".into(),
            legend: vec![(Key::Line(1), evil.into()), (Key::Fill(2), evil.into())],
            caption: evil.into(),
        }]);
        page.table(&[evil, evil], &[vec![evil.into(), evil.into()]], true);
        let html = page.finish();
        assert!(!html.contains("<script") && !html.contains('\u{1}'));
        assert_eq!(
            html.matches("&lt;script src=&quot;http://x&quot;&gt;&#39;&amp;\u{fffd}").count(),
            15
        );
        for fetching in ["src=", "href=", "url(", "@import", "<link", "<img", "<iframe"] {
            assert!(!html.replace(&escape(evil), "").contains(fetching), "{fetching}");
        }
    }
}
