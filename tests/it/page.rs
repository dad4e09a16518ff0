//! The page in a real browser, and the Grafana dashboard against our own `/metrics`.
