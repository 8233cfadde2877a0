"""Where sealed bytes lie: stores of objects, and the service between organisations that keeps copies of them."""
