def spin(n):
    s = 0
    for i in range(n):
        s += i
    return s

def heavy():
    return spin(3000)

def light():
    return spin(1000)

while True:
    heavy()
    light()
