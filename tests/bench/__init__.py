"""`make bench`: measures Quiesce and a StatefulSet in one run, and writes README's figures."""
