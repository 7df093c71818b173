def spin(n):
    s = 0
    for i in range(n):
        s += i
    return s

def heavy():
    return spin(30000)

def light():
    return spin(10000)

while True:
    heavy()
    light()
