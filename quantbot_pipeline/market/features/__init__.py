"""What was known of a call when it was made: of earlier calls, of its token's candles, of the market, of settled outcomes."""
