import smtplib, ssl, sys

with smtplib.SMTP("127.0.0.1", int(sys.argv[1])) as mail:
    mail.ehlo()
    mail.starttls(context=ssl._create_unverified_context())
    print(mail.ehlo())
