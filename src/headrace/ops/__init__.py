"""What an operator needs: metrics to scrape and the rules of access."""
