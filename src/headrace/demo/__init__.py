"""The demo on real data: a week of New York's flights, replayed, shown live and asked about."""
