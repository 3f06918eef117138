//! The keys that are for the console itself and not for the container: at the beginning of a line, ESC and then one more.

const ESCAPE: u8 = 0x1b;

/// What is wanted of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `ESC .`
    Detach,
    /// `ESC !`
    Attention,
}

/// Where in a line who types is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// At its beginning.
    #[default]
    Begin,
    /// There, and ESC was typed: whom it is for depends on what follows.
    Escape,
    /// Further on.
    Within,
}

impl Keys {
    /// Takes a byte; what is for the container is added to `out`.
    pub(super) fn feed(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Order> {
        match (*self, byte) {
            (Self::Begin, ESCAPE) => *self = Self::Escape,
            // The first is the container's, and the second may be the beginning of an order.
            (Self::Escape, ESCAPE) => out.push(ESCAPE),
            (Self::Escape, b'.' | b'!') => {
                *self = Self::Begin;
                return Some(if byte == b'.' { Order::Detach } else { Order::Attention });
            }
            (before, byte) => {
                if before == Self::Escape {
                    out.push(ESCAPE);
                }
                out.push(byte);
                *self = if matches!(byte, b'\r' | b'\n') { Self::Begin } else { Self::Within };
            }
        }
        None
    }

    /// No more comes: an ESC at the end was the container's.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if *self == Self::Escape {
            out.push(ESCAPE);
            *self = Self::Within;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> (String, Vec<Order>) {
        let (mut keys, mut out) = (Keys::default(), Vec::new());
        let orders = text.bytes().filter_map(|b| keys.feed(b, &mut out)).collect();
        keys.finish(&mut out);
        (String::from_utf8_lossy(&out).into_owned(), orders)
    }

    #[test]
    fn orders_are_taken_at_the_beginning_of_a_line_only() {
        assert_eq!(typed("\u{1b}."), (String::new(), vec![Order::Detach]));
        assert_eq!(typed("ls\r\u{1b}!ps\r"), ("ls\rps\r".into(), vec![Order::Attention]));
        assert_eq!(typed("ls \u{1b}.\n\u{1b}."), ("ls \u{1b}.\n".into(), vec![Order::Detach]));
    }

    #[test]
    fn any_other_escape_goes_through_as_it_was_typed() {
        for text in ["\u{1b}[A", "\u{1b}\u{1b}[A", "a\u{1b}\u{1b}.", "\r\u{1b}", "\u{1b}\r\n", "\u{1b}x\u{1b}."] {
            assert_eq!(typed(text), (text.to_owned(), vec![]), "{text:?}");
        }
        assert_eq!(typed("\u{1b}\u{1b}."), ("\u{1b}".into(), vec![Order::Detach]));
    }
}
