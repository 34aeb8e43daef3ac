"""Ask finished runs in the browser: what they say of an image, why, and what if symptoms change."""
