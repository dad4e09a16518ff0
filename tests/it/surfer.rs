//! A real browser for the tests of the page. Set `ROLLGATE_PICTURES` to a directory to have
//! pictures kept there.

use std::{path::PathBuf, time::Duration};

use chromiumoxide::{
    Browser, BrowserConfig, Page,
    cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams},
    page::ScreenshotParams,
};
use futures_util::StreamExt;

pub const WIDE: i64 = 1280;
pub const NARROW: i64 = 400;

/// Time that a page has to lay itself out anew after a change of its width.
const SETTLE: Duration = Duration::from_secs(5);

pub struct Surfer {
    browser: Browser,
    events: tokio::task::JoinHandle<()>,
    _profile: tempfile::TempDir,
}

impl Surfer {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let config = BrowserConfig::builder()
            .no_sandbox()
            .arg("--disable-gpu")
            .user_data_dir(profile.path())
            .build()
            .expect("this test needs chromium on the PATH: apt-get install chromium");
        let (browser, mut handler) = Browser::launch(config)
            .await
            .expect("this test needs a chromium that starts: apt-get install chromium");
        let events = tokio::spawn(async move { while handler.next().await.is_some() {} });
        Self { browser, events, _profile: profile }
    }

    pub async fn open(&self, url: &str, width: i64, scheme: &str) -> Page {
        let page = self.browser.new_page("about:blank").await.unwrap();
        look(&page, width, scheme).await;
        page.goto(url).await.unwrap();
        page
    }

    pub async fn close(mut self) {
        self.browser.close().await.unwrap();
        self.browser.wait().await.unwrap();
        self.events.abort();
    }
}

/// Gives the page a width and a colour scheme; nothing moves, so that pictures show what is.
pub async fn look(page: &Page, width: i64, scheme: &str) {
    page.execute(SetDeviceMetricsOverrideParams::new(width, 900, 1.0, false)).await.unwrap();
    let features = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")];
    let features = features.map(|(name, value)| MediaFeature::new(name, value));
    page.emulate_media_features(features.into()).await.unwrap();
}

/// Asks the page until the expression is true.
pub async fn until(page: &Page, expression: &str, patience: Duration) {
    // An expression about what is not there yet throws, which is as good as false.
    let holds = async || {
        let said = page.evaluate(expression).await;
        said.is_ok_and(|said| said.into_value::<bool>().unwrap_or(false))
    };
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(patience, asking).await.is_err() {
        let text = text(page, "document.body.innerText").await;
        panic!("{expression} did not come true; the page says:\n{text}");
    }
}

pub async fn text(page: &Page, expression: &str) -> String {
    page.evaluate(expression).await.unwrap().into_value().unwrap()
}

/// Nothing sticks out to the side, at any width, once the page has settled at this one.
pub async fn check_fits(page: &Page, name: &str) {
    let widest = "[...document.querySelectorAll('main *, aside *, header *')]\
                  .filter(e => !e.closest('.hidden, thead') && e.getBoundingClientRect().right \
                  > document.documentElement.clientWidth + 1)\
                  .map(e => e.outerHTML.slice(0, 120)).join('\\n')";
    let begun = std::time::Instant::now();
    while begun.elapsed() < SETTLE && !text(page, widest).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(text(page, widest).await, "", "{name} is too wide");
}

pub async fn picture(page: &Page, name: &str) {
    let Some(directory) = std::env::var_os("ROLLGATE_PICTURES").map(PathBuf::from) else { return };
    let whole = ScreenshotParams::builder().full_page(true).build();
    page.save_screenshot(whole, directory.join(format!("{name}.png"))).await.unwrap();
}
