"""The decision whether a challenger may replace the champion."""
