# Each line as a C string literal.
s/[\\"]/\\&/g
s/^/"/
s/$/\\n"/
